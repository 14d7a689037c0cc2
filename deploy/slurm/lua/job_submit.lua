-- Slurm's job-submit plugin (JobSubmitPlugins=lua; this file beside slurm.conf), for where `jobmeter_spank.c` is not wanted: batch scripts
-- are metered without a word of their users. jobmeter becomes the interpreter that the first line names, and runs the one that stood
-- there. What runs by `srun` within a batch script or an allocation is started by slurmd and not by the script, so it has to say
-- `srun jobmeter run -- COMMAND`.
--
-- jobmeter has the job's user here: README.md says whom that binds. The nodes need jobmeter in /usr/bin, `prolog` and `epilog`, and in
-- /etc/jobmeter/config.toml, which takes from the user what he could set otherwise:
--
--     enforced = true
--     ledger = "https://ledger.example:7770"
--     key_file = "/etc/jobmeter/keys/{user}"
--     spool_dir = "/var/spool/jobmeter/{user}"

-- Absolute paths keep users from putting others into their PATH.
local METER = "#!/usr/bin/env -S /usr/bin/jobmeter run -- "
-- Linux cuts a first line off there.
local FIRST_LINE_BYTES_MAX = 255

local function refuse(why)
  slurm.log_user("jobmeter: " .. why)
  return slurm.ERROR
end

function slurm_job_submit(job, partitions, uid)
  -- What is submitted from inside an array inherits the array's ids, and would be booked as a task of it.
  if job.environment ~= nil and job.environment.SLURM_ARRAY_JOB_ID ~= nil then
    job.environment.SLURM_ARRAY_JOB_ID = ""
  end
  local script = job.script
  if script == nil or script == "" then
    -- An allocation for a command, or for a shell. The words of the command are not shown to every version of this plugin.
    local argv = job.argv
    if argv ~= nil and argv[0] ~= nil and not tostring(argv[0]):match("jobmeter$") then
      return refuse("say `srun jobmeter run -- COMMAND`, or submit a script by sbatch")
    end
    return slurm.SUCCESS
  end
  local interpreter, argument, rest = script:match("^#![ \t]*(%S+)[ \t]*([^\n]-)[ \t]*(\n.*)$")
  if interpreter == nil then
    return refuse("the script's first line has to name its interpreter (#!/bin/sh)")
  end
  local first = METER .. interpreter
  if argument ~= "" then
    -- The kernel hands over all of it as one word.
    first = first .. " '" .. argument:gsub("[\\']", "\\%0") .. "'"
  end
  if #first > FIRST_LINE_BYTES_MAX then
    return refuse("the script's first line is too long")
  end
  job.script = first .. rest
  return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, uid)
  return slurm.SUCCESS
end

return slurm.SUCCESS

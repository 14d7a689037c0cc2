-- Slurm's job-submit plugin (JobSubmitPlugins=lua; this file beside slurm.conf): batch scripts are metered without a word of their
-- users. What runs by `srun` within a batch script is started by slurmd and not by the script, so it has to say
-- `srun jobmeter run -- COMMAND`; so has an `srun` from a login node, which is refused here otherwise.
--
-- The nodes need jobmeter, and /etc/jobmeter/config.toml with `ledger` and `key_file`. The key belongs to each job's user where
-- jobs have no other user than jobmeter: see the table in the README of who could cheat.

local shells = { sh = true, bash = true, dash = true, ksh = true, zsh = true }

-- The line that is put below the first one: the script once more, under the meter.
local metered = 'if [ -z "$JOBMETER_ATTEMPT" ]; then exec jobmeter run -- "$0" "$@"; fi\n'

local function refuse(why)
  slurm.log_user("jobmeter: " .. why)
  return slurm.ERROR
end

function slurm_job_submit(job, partitions, uid)
  local script = job.script
  if script == nil or script == "" then
    -- An allocation for a command, or for a shell. The words of the command are not shown to every version of this plugin.
    local argv = job.argv
    if argv ~= nil and argv[0] ~= nil and not tostring(argv[0]):match("jobmeter$") then
      return refuse("say `srun jobmeter run -- COMMAND`, or submit a script by sbatch")
    end
    return slurm.SUCCESS
  end
  local first, rest = script:match("^(#![^\n]*\n)(.*)$")
  local shell = first and (first:match("^#!%s*%S*/env%s+([%w]+)") or first:match("^#!%s*%S*/([%w]+)"))
  if not shell or not shells[shell] then
    return refuse("the script's first line has to name a shell (#!/bin/sh): let it start what it is for")
  end
  job.script = first .. metered .. rest
  return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, uid)
  return slurm.SUCCESS
end

return slurm.SUCCESS

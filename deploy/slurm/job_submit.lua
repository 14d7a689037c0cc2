-- Slurm's job-submit plugin (JobSubmitPlugins=lua; this file beside slurm.conf, on the controller) for use with `jobmeter_spank.c`: refuses
-- what makes slurmd run a user's own files before a job, where no plugin of SPANK sees it.
--
-- `sbatch --get-user-env`: slurmd runs `su - USER`, which reads the user's profile.

function slurm_job_submit(job, partitions, uid)
  if job.environment ~= nil and job.environment.SLURM_GET_USER_ENV ~= nil then
    slurm.log_user("jobmeter: --get-user-env is refused here: it would run your profile unmetered; set what the job needs in its script")
    return slurm.ERROR
  end
  return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, uid)
  return slurm.SUCCESS
end

return slurm.SUCCESS

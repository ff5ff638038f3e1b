"""Running the checks: targets, the plan, jobs, the child process and the pytest plugin."""

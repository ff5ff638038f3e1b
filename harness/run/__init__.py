"""How it is run: targets, the plan, jobs, the child process and the pytest plugin."""

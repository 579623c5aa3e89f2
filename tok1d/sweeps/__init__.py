"""Many runs: plan, dry run, Parsl, results, publishing."""

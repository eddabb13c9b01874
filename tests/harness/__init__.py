"""What integration tests share: programs.py starts and ends programs, cases.py is the test case that leaves none behind."""

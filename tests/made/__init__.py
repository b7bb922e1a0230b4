"""Made data and stand-ins for tests: a module for each kind; no test file imports another one."""

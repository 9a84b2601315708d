"""Who computes a call, and why: settings, dispatch, and the explanation of both."""

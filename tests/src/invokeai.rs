//! A fake InvokeAI.

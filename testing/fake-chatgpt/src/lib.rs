//! A scriptable fake of the ChatGPT backend and of its OAuth issuer.

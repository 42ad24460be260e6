//! Chat Completions, translated both ways.

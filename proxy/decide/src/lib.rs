//! The pure decisions of the data plane: selection and verdict.

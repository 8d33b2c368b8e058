//! Nothing: the samples are the files beside this one.

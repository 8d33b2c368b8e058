//! The samples are the files beside this one. Here the tests find the code of the skill for coding assistants, to run it.
#![cfg_attr(doctest, doc = include_str!("../.github/skills/mainspring-rust/SKILL.md"))]

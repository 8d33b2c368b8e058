//! Everything a user can type.

pub mod completion;
pub mod entity;
pub mod instance;
mod payload;
pub mod serve;
mod session;
pub mod store;

use clap::{Parser, Subcommand};

/// A durable task scheduler that the published Durable Task SDKs connect to.
///
/// Without a subcommand it serves with default settings.
#[derive(Debug, Parser)]
#[command(name = "mainspring", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scheduler until SIGTERM or Ctrl-C
    Serve(Box<serve::Serve>),
    /// Start, watch and steer orchestrations of a running scheduler
    Instance(Box<instance::Instance>),
    /// List, show and signal entities of a running scheduler
    Entity(Box<entity::Entity>),
    /// Look after a data folder while no scheduler uses it
    Store(store::Store),
    /// Print a script that completes this command in a shell
    Completion(completion::Completion),
}

impl Arguments {
    /// Does what was asked for.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            // Parsed again rather than built by hand, so that variables and defaults apply as they do to `serve`.
            None => Arguments::parse_from(["mainspring", "serve"]).run(),
            Some(Command::Serve(serve)) => serve.run(),
            Some(Command::Instance(instance)) => instance.run(),
            Some(Command::Entity(entity)) => entity.run(),
            Some(Command::Store(store)) => store.run(),
            Some(Command::Completion(completion)) => completion.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_subcommand_is_allowed_but_flags_of_serve_need_the_word() {
        assert!(
            Arguments::try_parse_from(["mainspring"])
                .unwrap()
                .command
                .is_none()
        );
        assert!(Arguments::try_parse_from(["mainspring", "--data-dir", "x"]).is_err());
        assert!(Arguments::try_parse_from(["mainspring", "serve", "--data-dir", "x"]).is_ok());
    }
}

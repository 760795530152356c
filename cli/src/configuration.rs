//! The command `ticketing configuration`: generates `docs/configuration.md` from the settings.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use crate::Cli;

/// Text above the table.
const INTRODUCTION: &str = "# Configuration

Each setting is an environment variable and a flag; the flag wins. `--help` of each program explains
them in detail. `ticketing configuration` prints this page.

Two variables have no flag: `OTEL_EXPORTER_OTLP_ENDPOINT`, such as `http://127.0.0.1:4318`, sends
traces there (api, worker, up), and `PG_BIN_DIR` names the directory of PostgreSQL's programs for
the private server (up, tests). Without it, they are looked up in `PATH`, then in the usual
directories.
";

/// Start of the default value in the help text of an option whose default clap does not know.
const DEFAULT: &str = " [default: ";

/// A row of the table.
struct Setting {
    variable: String,
    flag: String,
    /// Programs that have this setting.
    programs: Vec<String>,
    default: String,
    meaning: String,
}

/// Prints the page `docs/configuration.md`.
pub(crate) fn run() {
    print!("{}", page());
}

fn page() -> String {
    let mut settings = Vec::new();
    let ticketing = Cli::command();
    add(&mut settings, "api", &api::config::Args::command());
    add(&mut settings, "worker", &worker::config::Args::command());
    for command in ticketing.get_subcommands() {
        add(&mut settings, command.get_name(), command);
    }
    let mut page = INTRODUCTION.to_owned();
    page.push_str(
        "\n| variable | flag | programs | default | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for setting in settings {
        // Writing to a string can't fail.
        let _ = writeln!(
            page,
            "| `{}` | `--{}` | {} | {} | {} |",
            setting.variable,
            setting.flag,
            setting.programs.join(", "),
            setting.default,
            setting.meaning,
        );
    }
    page
}

/// Adds the settings of a program and of its commands.
fn add(settings: &mut Vec<Setting>, program: &str, command: &Command) {
    for argument in command.get_arguments() {
        let Some(new) = setting(argument) else {
            continue;
        };
        let known = settings
            .iter_mut()
            .position(|known| known.variable == new.variable && known.flag == new.flag)
            .unwrap_or_else(|| {
                settings.push(new);
                settings.len() - 1
            });
        let programs = &mut settings[known].programs;
        if programs.last().is_none_or(|last| last != program) {
            programs.push(program.to_owned());
        }
    }
    for subcommand in command.get_subcommands() {
        add(settings, program, subcommand);
    }
}

/// Returns the setting of an argument; `None` if it has no environment variable.
fn setting(argument: &Arg) -> Option<Setting> {
    let variable = argument.get_env()?.to_string_lossy().into_owned();
    let help = argument.get_help().map(ToString::to_string);
    let help = help.unwrap_or_default().replace('|', "\\|");
    let (meaning, default) = match help.split_once(DEFAULT) {
        Some((meaning, default)) => (meaning, default.trim_end_matches(']').to_owned()),
        None => (help.as_str(), default_of(argument)),
    };
    Some(Setting {
        variable,
        flag: argument.get_long()?.to_owned(),
        programs: Vec::new(),
        default,
        meaning: meaning.to_owned(),
    })
}

fn default_of(argument: &Arg) -> String {
    let values = argument.get_default_values().iter();
    let values = values.map(|value| format!("`{}`", value.to_string_lossy()));
    let text = values.collect::<Vec<_>>().join(" ");
    if text.is_empty() && argument.is_required_set() {
        "required".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_current() {
        assert!(
            include_str!("../../docs/configuration.md") == page(),
            "regenerate it: cargo run -- configuration > docs/configuration.md"
        );
    }
}

//! `outrigger inject` and `outrigger uninject`: files on this side, what is made of them on the side of
//! [`outrigger_control_plane::inject`].

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use outrigger_control_plane::inject::compose::{Form, Mode, Options, Row, inject};
use outrigger_control_plane::inject::{original, uninject as open};

use super::input::Input;
use super::rejection;
use super::validate::as_errors;
use crate::exit::{Failure, Outcome};
use crate::output::{Cell, Table, print};

/// Where compose looks for a file, in its order.
const COMPOSE_FILES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// The image of everything that is added, unless another is given.
const IMAGE: &str = concat!("outrigger:", env!("CARGO_PKG_VERSION"));

/// Kinds of files.
#[derive(Debug, Subcommand)]
pub(crate) enum InjectCommand {
    /// Put sidecars beside the services of a compose file
    Compose(ComposeArgs),
}

/// Arguments of `inject compose`.
#[derive(Debug, Args)]
pub(crate) struct ComposeArgs {
    /// The compose file, `-` for standard input; one that was injected before is injected anew. Default: the file that
    /// compose would take
    #[arg(short, long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where to write the result; it may be the same file, which holds its original. Default: standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write nothing; exit code 3 if the output (default: the file itself) is not what would be written
    #[arg(long)]
    check: bool,
    /// Make a file with what is added and changed only, for a second -f of compose
    #[arg(long = "override")]
    form_override: bool,
    /// Inject these services only; commas between, or repeated
    #[arg(long, value_name = "SERVICES", value_delimiter = ',')]
    only: Vec<String>,
    /// Three containers a service (network owner, sidecar, application), or one that runs sidecar and application
    #[arg(long, value_enum, default_value_t = ModeArgument::Trio)]
    mode: ModeArgument,
    /// The image with this program
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
    /// Publish the mesh API at 127.0.0.1:7700; containers of the mesh can use it too, then
    #[arg(long)]
    publish_api: bool,
    /// Inject a file anew that was changed by hand since: the changes are lost
    #[arg(long)]
    force: bool,
    /// Print no colours
    #[arg(long)]
    no_color: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArgument {
    Trio,
    Wrapper,
}

/// Arguments of `uninject`.
#[derive(Debug, Args)]
pub(crate) struct UninjectArgs {
    /// The injected file, `-` for standard input
    #[arg(short, long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Where to write the original; it may be the same file. Default: standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Injects a compose file; what became of each service goes to standard error.
pub(crate) fn compose(args: &ComposeArgs) -> Outcome {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => default_file()?,
    };
    let text = read(&file)?;
    let name = display(&file);
    let opened = original(&text).map_err(|error| Failure::Error(format!("{name}: {error}")))?;
    if opened.edited && !args.check && !args.force {
        return Err(Failure::Error(format!(
            "{name} was changed by hand since it was injected, and injecting it anew would lose that: make the change \
             in what `outrigger uninject` gives back, or give --force"
        )));
    }
    let options = Options {
        image: args.image.clone(),
        mode: match args.mode {
            ModeArgument::Trio => Mode::Trio,
            ModeArgument::Wrapper => Mode::Wrapper,
        },
        only: args.only.clone(),
        form: if args.form_override { Form::Override } else { Form::Whole },
        publish_api: args.publish_api,
    };
    let folder = file.parent().map_or_else(PathBuf::new, Path::to_owned);
    let files = |path: &str| std::fs::read_to_string(folder.join(path)).map_err(|e| e.to_string());
    let injected = match inject(&opened.original, &options, &files) {
        Ok(injected) => injected,
        Err(problems) => {
            let mut input = Input::default();
            input.add(&name, &opened.original);
            return Err(rejection::rejected(&as_errors(&problems)?, &input));
        }
    };
    if args.check {
        if args.form_override && args.output.is_none() {
            let reason = "--check of an override needs to know the file: give it with -o";
            return Err(Failure::Usage(reason.to_owned()));
        }
        let (target, is) = match &args.output {
            Some(output) => (display(output), read(output)?),
            None => (name.clone(), text),
        };
        return check(&is, &injected.text, &target, &name);
    }
    eprint!("{}", report(&injected.services, args));
    if injected.needs_reset {
        eprintln!(
            "note: `!reset` takes Compose 2.24 or later; for older ones inject the whole file"
        );
    }
    if let Some(output) = &args.output
        && output.parent().unwrap_or(Path::new("")) != folder
    {
        eprintln!(
            "note: {} is in another folder than {name}: give compose --project-directory, or relative paths change",
            display(output)
        );
    }
    write(args.output.as_deref(), &injected.text)
}

/// Restores the original of an injected file.
pub(crate) fn uninject(args: &UninjectArgs) -> Outcome {
    let text = read(&args.file)?;
    let name = display(&args.file);
    let opened = open(&text).map_err(|error| Failure::Error(format!("{name}: {error}")))?;
    if opened.edited {
        eprintln!(
            "warning: {name} was changed by hand since it was injected; the original has nothing of that"
        );
    }
    write(args.output.as_deref(), &opened.original)
}

/// The first of compose's files that is here.
fn default_file() -> Result<PathBuf, Failure> {
    let found = COMPOSE_FILES.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::Usage(format!("no -f, and none of {} is here", COMPOSE_FILES.join(", ")))
    })
}

fn check(is: &str, wanted: &str, target: &str, source: &str) -> Outcome {
    if is == wanted {
        eprintln!("{target} is up to date");
        return Ok(());
    }
    let differs = is.lines().zip(wanted.lines()).take_while(|(is, wanted)| is == wanted).count();
    Err(Failure::CheckFailed(format!(
        "{target} is not what `outrigger inject compose -f {source}` makes; they differ from line {}",
        differs + 1
    )))
}

/// SERVICE / ACTION / PORT / PROTO / CAPTURE / NOTES
fn report(rows: &[Row], args: &ComposeArgs) -> String {
    let mut table = Table::new(&["SERVICE", "ACTION", "PORT", "PROTO", "CAPTURE", "NOTES"]);
    for row in rows {
        let action = match row.action {
            "skipped" => Cell::attention(row.action),
            action => Cell::good(action),
        };
        let ports: Vec<String> = row.ports.iter().map(u16::to_string).collect();
        table.row([
            row.service.as_str().into(),
            action,
            ports.join(",").into(),
            row.protocols.join(",").into(),
            row.capture.into(),
            row.notes.join("; ").into(),
        ]);
    }
    let color = !args.no_color
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal();
    table.render(false, color)
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let result = match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(file).map(|content| text = content),
    };
    result.map_err(|error| Failure::Error(format!("{}: {error}", display(file))))?;
    Ok(text)
}

/// Writes a file whole or not at all, or to standard output.
fn write(file: Option<&Path>, text: &str) -> Outcome {
    let Some(file) = file.filter(|file| file.as_os_str() != "-") else { return print(text) };
    let failed = |error: std::io::Error| Failure::Error(format!("{}: {error}", display(file)));
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    std::fs::write(&new, text).map_err(failed)?;
    if let Ok(there) = std::fs::metadata(file) {
        std::fs::set_permissions(&new, there.permissions()).map_err(failed)?;
    }
    std::fs::rename(&new, file).map_err(failed)
}

fn display(file: &Path) -> String {
    if file.as_os_str() == "-" { "(standard input)".to_owned() } else { file.display().to_string() }
}

//! Prints the programs of ours that are loaded, a line each: for checks that nothing was left behind. Fails when they cannot be
//! listed, but for a user who may not.

use aya::programs::{ProgramError, loaded_programs};
use std::{io::ErrorKind, process::ExitCode};

/// The programs, as they were compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../shims/openwfp.bpf.o");
/// As much of a name as the kernel keeps.
const KEPT: usize = 15;

fn main() -> ExitCode {
    let object = match aya_obj::Object::parse(OBJECT) {
        Ok(object) => object,
        Err(error) => {
            eprintln!("the compiled programs cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ours: Vec<&str> = object.programs.keys().map(|name| &name[..name.len().min(KEPT)]).collect();
    for program in loaded_programs() {
        match program {
            Ok(program) => {
                if let Some(name) = program.name_as_str().filter(|name| ours.contains(name)) {
                    println!("program {name}, number {}", program.id());
                }
            }
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::PermissionDenied => {
                eprintln!("skipped: loaded programs: this user may not list them");
                return ExitCode::SUCCESS;
            }
            Err(error) => {
                eprintln!("loaded programs cannot be listed: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

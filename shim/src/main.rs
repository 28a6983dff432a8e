//! The shim: started by the supervisor from memory, with its socket as descriptor 3.

use std::process::ExitCode;

fn main() -> ExitCode {
    match sublet_shim::nursery::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sublet_shim::nursery::last_words(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

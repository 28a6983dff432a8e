//! The shim: started by the supervisor from memory, with its socket as descriptor 3. Its first argument says what it is to be.

use std::process::ExitCode;

use sublet_shim::chain::chain;

fn main() -> ExitCode {
    // The nursery is started without arguments.
    let (name, outcome) = match std::env::args().nth(1).as_deref() {
        Some(sublet_shim::runner::ARGUMENT) => ("runner", sublet_shim::runner::run().map_err(|error| chain(&error))),
        _ => ("nursery", sublet_shim::nursery::run().map_err(|error| chain(&error))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sublet_shim::nursery::last_words(name, &error);
            ExitCode::FAILURE
        }
    }
}

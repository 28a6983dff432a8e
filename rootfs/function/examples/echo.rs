//! The smallest `stream` function: answers what it is sent. `tests/bench` measures with it.

fn main() -> std::io::Result<()> {
    sublet_function::serve(|call| Ok::<_, std::convert::Infallible>(call.into_payload()))
}

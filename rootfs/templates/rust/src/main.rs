//! A function of sublet: one process for each customer, which stays for its next calls.

fn main() -> std::io::Result<()> {
    // This customer's: no other ever meets this process.
    let mut calls = 0_u64;
    let customer = sublet_function::sub_tenant().unwrap_or_default();
    sublet_function::serve(|call| {
        calls += 1;
        let payload = call.text()?;
        eprintln!("call {calls} with {} bytes", payload.len());
        Ok::<_, std::str::Utf8Error>(format!("hello {customer}, this is call {calls}: {payload}\n"))
    })
}

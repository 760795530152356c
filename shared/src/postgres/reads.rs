//! Reads outside of transactions.

use super::error::Error;

/// Runs a read, and retries it once if that helps at once.
///
/// It helps if a statement must be prepared again, or if an operator cancelled it. A
/// [transaction](super::Session::transact) retries its own reads; this is for reads outside of one.
///
/// # Errors
///
/// Fails with the error of the last read.
pub async fn read<T, Asking>(mut ask: impl FnMut() -> Asking) -> Result<T, Error>
where
    Asking: Future<Output = Result<T, Error>>,
{
    match ask().await {
        Err(error) if error.is_gone_at_once() => ask().await,
        result => result,
    }
}

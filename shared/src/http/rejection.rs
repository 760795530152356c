//! Reasons why the middleware rejects a request.

/// Reason that a request did not reach its route, or got no response from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The header `Host` is repeated, or missing from an HTTP/1.1 request.
    ///
    /// A proxy in front of the server may have understood another host.
    NoHost,
    /// The header `Host` names neither this machine nor an allowed host.
    UnknownHost,
    /// A web page of another origin sent the request.
    CrossOrigin,
    /// The caller has exceeded its rate limit.
    TooManyRequests,
    /// The server has its maximum number of requests in flight, or the caller has its share of it.
    Overloaded,
    /// The request timed out. Its outcome is unknown.
    TimedOut,
    /// A bug: the handler panicked with this message.
    Panicked(String),
}

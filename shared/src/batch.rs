//! Batches of requests that share a transaction.

use std::fmt;

/// Requests that share a transaction, in the order in which they arrived.
///
/// More requests arrive while the transaction waits for its locks. Those that these locks cover can
/// join the batch, and need not wait for the next one.
pub struct Batch<'w, Request> {
    members: Vec<Request>,
    waiting: Option<&'w mut dyn Waiting<Request>>,
}

/// Requests that wait, and that a batch may admit.
pub trait Waiting<Request>: Send {
    /// Returns the longest waiting request that fits; `None` if there is none or the batch is full.
    fn next_if(&mut self, fits: &dyn Fn(&Request) -> bool) -> Option<Request>;
}

impl<'w, Request> Batch<'w, Request> {
    /// Creates a batch that no other request can join.
    #[must_use]
    pub fn of(members: impl Into<Vec<Request>>) -> Self {
        Self {
            members: members.into(),
            waiting: None,
        }
    }

    /// Creates a batch that waiting requests can join.
    pub fn joined_by(members: Vec<Request>, waiting: &'w mut dyn Waiting<Request>) -> Self {
        Self {
            members,
            waiting: Some(waiting),
        }
    }

    /// Returns all requests that were in the batch in the end.
    #[must_use]
    pub fn into_members(self) -> Vec<Request> {
        self.members
    }

    /// Returns the requests that are in the batch now.
    #[must_use]
    pub fn members(&self) -> &[Request] {
        &self.members
    }

    /// Lets the waiting requests that fit join, in the order in which they arrived.
    ///
    /// They stay members when the transaction is run again.
    pub fn admit(&mut self, fits: impl Fn(&Request) -> bool) {
        let Some(waiting) = &mut self.waiting else {
            return;
        };
        while let Some(request) = waiting.next_if(&fits) {
            self.members.push(request);
        }
    }
}

impl<Request: fmt::Debug> fmt::Debug for Batch<'_, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Batch").field(&self.members).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{iter::Peekable, vec};

    use super::*;

    impl Waiting<i32> for Peekable<vec::IntoIter<i32>> {
        fn next_if(&mut self, fits: &dyn Fn(&i32) -> bool) -> Option<i32> {
            Peekable::next_if(self, fits)
        }
    }

    #[test]
    fn those_that_fit_join() {
        let mut queue = vec![6, 4, 3, 2].into_iter().peekable();
        let mut batch = Batch::joined_by(vec![8], &mut queue);
        batch.admit(|number| number % 2 == 0);
        assert_eq!(batch.members(), [8, 6, 4]);
        batch.admit(|number| *number == 3);
        assert_eq!(batch.members(), [8, 6, 4, 3]);
    }
}

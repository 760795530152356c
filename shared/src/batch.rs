//! Batches of requests that share a transaction.

/// Requests that share a transaction, in the order in which they arrived.
///
/// More requests arrive while the transaction waits for its locks. Those that these locks cover can
/// join the batch, and need not wait for the next one.
pub struct Batch<'w, Request> {
    members: Vec<Request>,
    waiting: Option<NextIf<'w, Request>>,
}

/// Function that returns the request that has waited longest, if it fits.
type NextIf<'w, Request> = &'w mut (dyn FnMut(&dyn Fn(&Request) -> bool) -> Option<Request> + Send);

impl<'w, Request> Batch<'w, Request> {
    /// Creates a batch that no other request can join.
    #[must_use]
    pub fn of(members: impl Into<Vec<Request>>) -> Self {
        Self {
            members: members.into(),
            waiting: None,
        }
    }

    /// Creates a batch that more requests can join: those that `next_if` returns.
    pub fn joined_by(members: Vec<Request>, next_if: NextIf<'w, Request>) -> Self {
        Self {
            members,
            waiting: Some(next_if),
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

    /// Lets waiting requests join in the order in which they arrived, until one does not fit.
    ///
    /// They stay members when the transaction is run again.
    pub fn admit(&mut self, fits: impl Fn(&Request) -> bool) {
        let Some(next_if) = &mut self.waiting else {
            return;
        };
        while let Some(request) = next_if(&fits) {
            self.members.push(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_fit_join() {
        let mut queue = vec![6, 4, 3, 2].into_iter().peekable();
        let mut next_if = |fits: &dyn Fn(&i32) -> bool| queue.next_if(fits);
        let mut batch = Batch::joined_by(vec![8], &mut next_if);
        batch.admit(|number| number % 2 == 0);
        assert_eq!(batch.members(), [8, 6, 4]);
        batch.admit(|number| *number == 3);
        assert_eq!(batch.members(), [8, 6, 4, 3]);
    }
}

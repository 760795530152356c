//! Timeouts of a connection that hardly use the runtime's timer.
//!
//! Each request has a timeout for its head and one for its response, and almost all of them end
//! early. With the runtime's timer, each would be added to and removed from a wheel that all
//! threads share. Here, a timeout that ends early leaves its alarm set, and the next timeout of the
//! connection takes the alarm over: if the alarm rings before the new deadline, it is set anew. So
//! the runtime's timer is used once in many requests.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

type Alarm = Pin<Box<Sleep>>;

/// Timer of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Timer {
    /// An alarm that no timeout uses now.
    spare: Arc<Mutex<Option<Alarm>>>,
}

impl Timer {
    /// Returns a future that is ready from the deadline on.
    pub(super) fn until(&self, deadline: Instant) -> Timeout {
        let spare = self.lock().take();
        Timeout {
            deadline,
            alarm: Some(spare.unwrap_or_else(|| Box::pin(sleep_until(deadline)))),
            timer: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Alarm>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.until(Instant::now() + duration))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.until(deadline.into()))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

/// A timeout of a connection, ready from its deadline on.
#[derive(Debug)]
pub(super) struct Timeout {
    deadline: Instant,
    /// None once the timeout is dropped.
    alarm: Option<Alarm>,
    timer: Timer,
}

impl Future for Timeout {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let Some(alarm) = &mut self.alarm else {
            return Poll::Ready(());
        };
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(context));
            if alarm.deadline() >= deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
    }
}

impl hyper::rt::Sleep for Timeout {}

impl Drop for Timeout {
    fn drop(&mut self) {
        *self.timer.lock() = self.alarm.take();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    fn after(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    /// Returns the seconds until the future is ready.
    async fn seconds(timeout: Timeout) -> u64 {
        let began = Instant::now();
        timeout.await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_is_ready_at_its_deadline_whatever_alarm_it_takes_over() {
        let timer = Timer::default();
        assert_eq!(seconds(timer.until(after(3))).await, 3, "with a new alarm");
        assert_eq!(seconds(timer.until(after(3))).await, 3, "one that has rung");
        drop(timer.until(after(60)));
        assert_eq!(seconds(timer.until(after(3))).await, 3, "a later one");
        let early = timeout(Duration::from_secs(1), timer.until(after(2))).await;
        assert!(early.is_err());
        assert_eq!(seconds(timer.until(after(5))).await, 5, "an earlier one");
        drop(timer.until(after(1)));
        advance(Duration::from_secs(9)).await;
        assert_eq!(
            seconds(timer.until(after(4))).await,
            4,
            "one that rang unheard"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn timeouts_at_the_same_time_have_their_own_alarms() {
        let timer = Timer::default();
        let (first, second) = (timer.until(after(2)), timer.until(after(1)));
        let took = tokio::join!(seconds(first), seconds(second));
        assert_eq!(took, (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_is_taken_over() {
        let timer = Timer::default();
        drop(timer.until(after(60)));
        let set = timer.lock().as_ref().map(|alarm| alarm.deadline());
        drop(timer.until(after(70)));
        let still = timer.lock().as_ref().map(|alarm| alarm.deadline());
        assert_eq!(set, still);
    }
}

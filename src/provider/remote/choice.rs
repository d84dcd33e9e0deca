//! Chooses the endpoint for a call: [`choose`].

use tokio::time::Instant;

use super::endpoint::Endpoint;

/// Chooses the less busy one of two random endpoints that do not rest. If all rest, it is the one whose rest ends first.
///
/// Two random ones and not the least busy of all: many clients that all see the same one as idle would all go there.
pub(super) fn choose(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    let now = Instant::now();
    let awake: Vec<&Endpoint> = endpoints.iter().filter(|endpoint| endpoint.rests_until(now).is_none()).collect();
    less_busy(&awake).or_else(|| endpoints.iter().min_by_key(|endpoint| endpoint.rests_until(now)))
}

/// Chooses one of the endpoints that do not rest, but not this one.
pub(super) fn choose_other<'e>(endpoints: &'e [Endpoint], than: &Endpoint) -> Option<&'e Endpoint> {
    let now = Instant::now();
    let is_other = |endpoint: &&Endpoint| !std::ptr::eq(*endpoint, than) && endpoint.rests_until(now).is_none();
    less_busy(&endpoints.iter().filter(is_other).collect::<Vec<_>>())
}

/// Returns the less busy one of two random endpoints.
fn less_busy<'e>(endpoints: &[&'e Endpoint]) -> Option<&'e Endpoint> {
    let (one, other) = match endpoints.len() {
        0 => return None,
        1 => (0, 0),
        count => {
            let one = fastrand::usize(..count);
            (one, (one + fastrand::usize(1..count)) % count)
        }
    };
    Some([endpoints[one], endpoints[other]])
        .map(|[one, other]| if other.outstanding_bytes() < one.outstanding_bytes() { other } else { one })
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use super::*;
    use crate::{Batch, Error, ErrorKind};

    fn endpoints(count: u16) -> Vec<Endpoint> {
        let url = |at: u16| format!("http://host:{}", 8000 + at);
        (0..count).map(|at| Endpoint::new(&Url::parse(&url(at)).expect("valid"))).collect()
    }

    fn chosen(endpoints: &[Endpoint]) -> usize {
        let chosen = choose(endpoints).expect("one of them");
        endpoints.iter().position(|endpoint| std::ptr::eq(endpoint, chosen)).expect("one of them")
    }

    #[tokio::test(start_paused = true)]
    async fn the_less_busy_of_two_is_chosen_and_all_are() {
        assert!(choose(&[]).is_none());
        let two = endpoints(2);
        let under_way = two[0].begin(&Batch::documents(&["long text"]));
        assert!((0..50).all(|_| chosen(&two) == 1));
        assert_eq!((two[0].stats().outstanding_texts, two[0].stats().calls), (1, 1));
        drop(under_way);
        assert_eq!((two[0].stats().outstanding_texts, two[0].outstanding_bytes()), (0, 0));
        let five = endpoints(5);
        let mut seen = [false; 5];
        (0..500).for_each(|_| seen[chosen(&five)] = true);
        assert_eq!(seen, [true; 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_rest_are_passed_over_unless_all_do() {
        let three = endpoints(3);
        let down = |seconds| {
            Error::new(ErrorKind::Unavailable, "down").with_retry_after(std::time::Duration::from_secs(seconds))
        };
        three[0].failed(&down(9));
        three[1].failed(&down(5));
        assert!((0..50).all(|_| chosen(&three) == 2));
        assert!(choose_other(&three, &three[2]).is_none());
        assert!(choose_other(&three, &three[0]).is_some_and(|other| std::ptr::eq(other, &three[2])));
        three[2].failed(&down(7));
        assert!((0..50).all(|_| chosen(&three) == 1), "its rest ends first");
        tokio::time::advance(std::time::Duration::from_secs(8)).await;
        assert!((0..50).all(|_| chosen(&three) != 0));
    }
}

use super::*;
use Event::*;

/// Plays events one second apart and checks the state after each.
fn check(policy: HealthPolicy, events: &[(Event, State)]) {
    let mut health = Health::new(policy);
    let mut before = State::Up;
    for (index, (event, state)) in events.iter().enumerate() {
        let now = index as u64 * 1000;
        before = match health.state(now) {
            // Time alone ends being set aside.
            State::Up if before == State::Aside => State::Up,
            _ => before,
        };
        let change = health.step(*event, now);
        assert_eq!(health.state(now), *state, "event {index}, {event:?}");
        assert_eq!(change, (*state != before).then_some(*state), "event {index}, {event:?}");
        before = *state;
    }
}

#[test]
fn probes_take_an_origin_down_and_up_by_runs_of_their_own_length() {
    check(
        HealthPolicy::default(),
        &[
            (ProbeFailed, State::Up),
            (ProbeFailed, State::Up),
            (ProbeSucceeded, State::Up),
            (ProbeFailed, State::Up),
            (ProbeFailed, State::Up),
            (ProbeFailed, State::Down),
            (ProbeFailed, State::Down),
            (ProbeSucceeded, State::Down),
            (ProbeFailed, State::Down),
            (ProbeSucceeded, State::Down),
            (ProbeSucceeded, State::Up),
        ],
    );
}

#[test]
fn failing_requests_set_an_origin_aside_for_a_while() {
    let policy = HealthPolicy { aside_after: 2, aside_ms: 2_500, ..HealthPolicy::default() };
    check(
        policy,
        &[
            (RequestFailed, State::Up),
            (RequestSucceeded, State::Up),
            (RequestFailed, State::Up),
            (RequestFailed, State::Aside),
            (ProbeSucceeded, State::Aside),
            (ProbeFailed, State::Aside),
            // 3 s later it gets another chance, and one more failure ends it.
            (RequestFailed, State::Aside),
            (RequestSucceeded, State::Up),
            (RequestFailed, State::Up),
        ],
    );
}

#[test]
fn requests_say_nothing_when_the_policy_says_never() {
    let policy = HealthPolicy { aside_after: 0, ..HealthPolicy::default() };
    check(policy, &[(RequestFailed, State::Up); 50]);
}

#[test]
fn an_origin_that_probes_took_down_is_not_up_because_a_request_succeeded() {
    let policy = HealthPolicy { down_after: 1, ..HealthPolicy::default() };
    check(
        policy,
        &[(ProbeFailed, State::Down), (RequestSucceeded, State::Down), (RequestSucceeded, State::Down)],
    );
}

#[test]
fn coming_back_up_forgets_the_failures_before() {
    let policy = HealthPolicy { down_after: 1, up_after: 1, aside_after: 2, aside_ms: 60_000 };
    check(
        policy,
        &[
            (RequestFailed, State::Up),
            (RequestFailed, State::Aside),
            (ProbeFailed, State::Down),
            (ProbeSucceeded, State::Up),
            (RequestFailed, State::Up),
        ],
    );
}

fn origin(state: State) -> Health {
    let mut health = Health::new(HealthPolicy::default());
    let event = if state == State::Down { ProbeFailed } else { RequestFailed };
    while state != State::Up && health.state(0) != state {
        health.step(event, 0);
    }
    health
}

#[test]
fn origins_that_are_up_are_tried_in_order_and_all_when_none_is() {
    use State::*;
    for (states, order, origins, failed_open) in [
        (vec![Up, Up, Up], vec![0, 1, 2], vec![0, 1, 2], false),
        (vec![Up, Down, Up], vec![2, 1, 0], vec![2, 0], false),
        (vec![Aside, Down, Up], vec![0, 1, 2], vec![2], false),
        (vec![Down, Aside, Down], vec![0, 1, 2], vec![1, 0, 2], true),
        (vec![Down], vec![0], vec![0], true),
        (vec![Down], vec![0, 9], vec![9], false),
        (vec![], vec![], vec![], false),
    ] {
        let states: Vec<Health> = states.into_iter().map(origin).collect();
        assert_eq!(choose(&order, &states, 0), Choice { origins, failed_open }, "{order:?}");
    }
}

#[test]
fn an_origin_set_aside_is_chosen_again_when_its_time_is_over() {
    let states = [origin(State::Aside), origin(State::Up)];
    assert_eq!(choose(&[0, 1], &states, 4_999).origins, [1]);
    assert_eq!(choose(&[0, 1], &states, 5_000).origins, [0, 1]);
}

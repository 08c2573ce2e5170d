//! Logins at an engine that has users: the token that stands for user name and password, and when a new one is requested.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use reqwest::header::HeaderValue;
use serde_json::Value;
use service::secret::Secret;

use super::EngineError;

/// After a refused login the next one waits this long, and twice as long after each further one: wrong passwords must not
/// load the engine, which hashes each.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const MAX_DELAY: Duration = Duration::from_mins(5);

/// The user that we are to the engine.
#[derive(Debug, Clone)]
pub struct EngineLogin {
    /// The user's name; for InvokeAI an e-mail address.
    pub user: Secret,
    /// The password.
    pub password: Secret,
}

impl EngineLogin {
    /// Reads a file of two lines. Errors say what is wrong, and never quote.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.trim_start_matches('\u{feff}').lines();
        let user = lines.next().and_then(Secret::new);
        let password = lines.next().and_then(Secret::new);
        if lines.any(|line| !line.trim().is_empty()) {
            return Err("expected two lines, a user name and a password, found more");
        }
        Ok(Self {
            user: user.ok_or("expected a user name in its first line, found nothing")?,
            password: password.ok_or("expected a password in its second line, found nothing")?,
        })
    }

    fn is(&self, other: &Self) -> bool {
        self.user.matches(other.user.expose()) && self.password.matches(other.password.expose())
    }
}

/// How an engine is logged in to.
#[derive(Debug)]
pub(super) struct LoginDialect {
    /// Where user name and password are sent.
    pub(super) path: &'static str,
    /// The body of that request.
    pub(super) body: fn(&EngineLogin) -> Value,
    /// The member of the response that holds the token.
    pub(super) token: &'static str,
    /// The header of any response that holds a fresh token.
    pub(super) refreshed: &'static str,
}

/// A login that is being made; whoever needs its token polls it, and giving up one request does not give it up.
pub(super) type LoginAttempt = Shared<BoxFuture<'static, Result<HeaderValue, EngineError>>>;

/// What is known about our login.
#[derive(Default)]
pub(super) struct Session(Mutex<SessionState>);

#[derive(Default)]
struct SessionState {
    login: Option<EngineLogin>,
    token: Option<HeaderValue>,
    attempt: Option<LoginAttempt>,
    /// Why the engine refused the last login, and when the next one is due.
    refusal: Option<(EngineError, Instant)>,
    /// Since a request that needs a login last succeeded after one.
    refusals: u32,
}

/// What to do about a 401.
pub(super) enum Renewal {
    /// Nothing: there is no user name and password.
    NoLogin,
    /// Repeat the request with this token, which another request has got in the meantime.
    Token(HeaderValue),
    /// Wait for this login.
    Attempt(LoginAttempt),
    /// Give up: a login was refused, and the next one is not due yet.
    Refused(EngineError),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// Logs in with this from now on, and at once if the last login was refused.
    pub(super) fn set_login(&self, login: Option<EngineLogin>) {
        let mut state = self.state();
        let is_same = login.as_ref().zip(state.login.as_ref()).is_some_and(|(new, old)| new.is(old));
        let token = state.token.take().filter(|_| is_same);
        *state = SessionState { login, token, ..SessionState::default() };
    }

    /// The engine is gone, and may come back with other users: the next login is due at once.
    pub(super) fn forget_refusal(&self) {
        let mut state = self.state();
        (state.refusal, state.refusals) = (None, 0);
    }

    pub(super) fn has_login(&self) -> bool {
        self.state().login.is_some()
    }

    /// For the next request; none before the engine has asked for a login.
    pub(super) fn token(&self) -> Option<HeaderValue> {
        self.state().token.clone()
    }

    /// After a 401 to a request with the token `used`. `start` makes a login.
    pub(super) fn renew(
        &self,
        used: Option<&HeaderValue>,
        now: Instant,
        start: impl FnOnce(&EngineLogin) -> BoxFuture<'static, Result<HeaderValue, EngineError>>,
    ) -> Renewal {
        let mut state = self.state();
        let Some(login) = &state.login else { return Renewal::NoLogin };
        if let Some(token) = state.token.as_ref().filter(|token| Some(*token) != used) {
            return Renewal::Token(token.clone());
        }
        if let Some(attempt) = &state.attempt {
            return Renewal::Attempt(attempt.clone());
        }
        if let Some((refusal, due)) = &state.refusal
            && now < *due
        {
            return Renewal::Refused(refusal.clone());
        }
        let attempt = start(login).shared();
        state.attempt = Some(attempt.clone());
        Renewal::Attempt(attempt)
    }

    /// Notes how a login ended. Each request that waited for it reports it; the first one counts.
    pub(super) fn finish(
        &self,
        attempt: &LoginAttempt,
        result: &Result<HeaderValue, EngineError>,
        now: Instant,
    ) {
        let mut state = self.state();
        if !state.attempt.as_ref().is_some_and(|current| current.ptr_eq(attempt)) {
            return;
        }
        state.attempt = None;
        match result {
            Ok(token) => {
                (state.token, state.refusal) = (Some(token.clone()), None);
            }
            Err(refusal @ EngineError::LoginRequired(_)) => state.refuse(refusal.clone(), now),
            // It does not answer, which says nothing about the password.
            Err(_) => {}
        }
    }

    /// The engine has answered a request with the token `used` with a fresh one.
    pub(super) fn refresh(&self, used: &HeaderValue, fresh: HeaderValue) {
        let mut state = self.state();
        if state.token.as_ref() == Some(used) {
            state.token = Some(fresh);
        }
    }

    /// The engine has accepted a fresh token for a request that it refuses without one.
    pub(super) fn accept(&self, used: &HeaderValue) {
        let mut state = self.state();
        if state.token.as_ref() == Some(used) {
            state.refusals = 0;
        }
    }

    /// The engine has refused a fresh token. Several requests may report the same one.
    pub(super) fn refuse(&self, used: &HeaderValue, refusal: EngineError, now: Instant) {
        let mut state = self.state();
        if state.token.as_ref() == Some(used) && state.refusal.is_none() {
            state.refuse(refusal, now);
        }
    }

    fn state(&self) -> MutexGuard<'_, SessionState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionState {
    fn refuse(&mut self, refusal: EngineError, now: Instant) {
        let delay = FIRST_DELAY.saturating_mul(1 << self.refusals.min(8)).min(MAX_DELAY);
        self.refusals += 1;
        self.refusal = Some((refusal, now + delay));
    }
}

/// The value of `Authorization` for a token; none for one that no header can carry.
pub(super) fn bearer_value(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| !token.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: fn(&EngineLogin) -> BoxFuture<'static, Result<HeaderValue, EngineError>> =
        |_| panic!("no login is due");

    fn login(password: &str) -> EngineLogin {
        EngineLogin::read(&format!("a@example.org\n{password}\n")).unwrap()
    }

    fn answer(
        result: Result<&str, EngineError>,
    ) -> impl FnOnce(&EngineLogin) -> BoxFuture<'static, Result<HeaderValue, EngineError>> {
        let result = result.map(|token| bearer_value(token).unwrap());
        |_| std::future::ready(result).boxed()
    }

    fn wrong() -> EngineError {
        EngineError::LoginRequired("wrong".into())
    }

    /// Makes a login that is due, and returns its result.
    fn log_in(session: &Session, now: Instant, result: Result<&str, EngineError>) {
        let Renewal::Attempt(attempt) = session.renew(session.token().as_ref(), now, answer(result)) else {
            panic!("a login is due");
        };
        let result = attempt.clone().now_or_never().unwrap();
        session.finish(&attempt, &result, now);
    }

    #[test]
    fn the_file_has_two_lines_and_its_content_is_never_shown() {
        for text in ["a@b.c\nhush", "a@b.c\r\nhush\r\n", "\u{feff} a@b.c \n hush \n\n \n"] {
            let login = EngineLogin::read(text).unwrap();
            assert_eq!((login.user.expose(), login.password.expose()), ("a@b.c", "hush"), "{text:?}");
            assert!(!format!("{login:?}").contains("hush") && !format!("{login:?}").contains("a@b"));
        }
        for (text, expected) in [
            ("", "first line"),
            ("\nhush", "first line"),
            ("a@b.c", "second line"),
            ("a@b.c\n  \n", "second line"),
            ("a@b.c\nhush\nhush", "found more"),
        ] {
            let error = EngineLogin::read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hush"), "{text:?}: {error}");
        }
    }

    #[test]
    fn requests_share_one_login_and_its_token_until_the_engine_refuses_it() {
        let (session, now) = (Session::default(), Instant::now());
        assert!(matches!(session.renew(None, now, NO), Renewal::NoLogin));
        session.set_login(Some(login("hush")));
        let Renewal::Attempt(one) = session.renew(None, now, answer(Ok("t1"))) else { panic!() };
        let Renewal::Attempt(other) = session.renew(None, now, NO) else { panic!() };
        assert!(one.ptr_eq(&other));
        session.finish(&one, &one.clone().now_or_never().unwrap(), now);
        let first = session.token().unwrap();
        assert_eq!(first, "Bearer t1");
        assert!(!format!("{first:?}").contains("t1"));
        assert!(matches!(session.renew(None, now, NO), Renewal::Token(token) if token == first));
        session.refresh(&first, bearer_value("t2").unwrap());
        session.refresh(&first, bearer_value("late").unwrap());
        assert_eq!(session.token().unwrap(), "Bearer t2");
        log_in(&session, now, Ok("t3"));
        assert_eq!(session.token().unwrap(), "Bearer t3");
    }

    #[test]
    fn a_refused_login_is_repeated_ever_less_often_and_at_once_after_a_reload_or_a_restart() {
        let (session, start) = (Session::default(), Instant::now());
        session.set_login(Some(login("typo")));
        let mut now = start;
        for delay in [10, 20, 40, 80, 160, 300, 300] {
            log_in(&session, now, Err(wrong()));
            let just_before = now + Duration::from_millis(delay * 1000 - 1);
            assert!(
                matches!(session.renew(None, just_before, NO), Renewal::Refused(error) if error == wrong())
            );
            now += Duration::from_secs(delay);
        }
        log_in(&session, now, Err(wrong()));
        session.forget_refusal();
        log_in(&session, now, Err(wrong()));
        session.set_login(Some(login("typo")));
        log_in(&session, now, Err(EngineError::Unresponsive("busy".into())));
        log_in(&session, now, Ok("t1"));
        session.set_login(Some(login("typo")));
        assert!(session.token().is_some(), "the same user keeps the token");
        session.set_login(Some(login("other")));
        assert_eq!(session.token(), None);
    }

    #[test]
    fn a_fresh_token_that_is_refused_counts_as_a_refused_login() {
        let (session, mut now) = (Session::default(), Instant::now());
        session.set_login(Some(login("hush")));
        for (nth, delay) in [10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
            log_in(&session, now, Ok(&format!("t{nth}")));
            let token = session.token().unwrap();
            for _ in 0..3 {
                session.refuse(&token, wrong(), now);
            }
            let just_before = now + Duration::from_millis(delay * 1000 - 1);
            assert!(matches!(session.renew(Some(&token), just_before, NO), Renewal::Refused(_)), "{delay}");
            now += Duration::from_secs(delay);
        }
        log_in(&session, now, Ok("good"));
        let token = session.token().unwrap();
        session.accept(&token);
        session.refuse(&token, wrong(), now);
        log_in(&session, now + FIRST_DELAY, Ok("the delay begins anew"));
    }
}

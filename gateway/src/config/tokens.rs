//! Tokens: their holders, limits, and the images that they see.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use service::{
    secret::{EMPTY_TOKEN as EMPTY, Secret},
    settings::{Settings, list},
};
use sha2::{Digest, Sha256};

const OWNER_TOKENS: &str = "GATEWAY_OWNER_TOKENS";
const INVALID_MAX: &str = "expected nothing after `name=token` but `;max=N`: how many requests of that token may run at once, a whole number \
     above 0";
const TOO_SHORT: &str = "expected at least 16 characters of token between `name=` and `;max=`";
const UNNAMED_MAX: &str = "`;max=` needs a named token: name=token;max=N, the name of a-z, 0-9, _ and -, the token of at least 16 characters";
const CONFLICTING_MAX: &str = "expected one `;max=N` for each name; a name that occurs twice has two";

/// A token and who holds it.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its holder, for the log: from `name=token`; a bare token is numbered by its position.
    pub name: String,
    /// What clients send.
    pub secret: Secret,
    /// How many of its requests may run at once; if `None`, only the backends' limits apply.
    pub max_concurrent: Option<usize>,
    /// Whether it sees and deletes everybody's images.
    pub sees_all: bool,
    /// Whether the configuration names it. A number is only a position in a list that changes.
    is_named: bool,
    /// The owner recorded with a bare token's images.
    id: String,
}

impl Token {
    /// A token with a name, without limit.
    pub fn named(name: &str, secret: Secret) -> Self {
        Self { is_named: true, ..Self::unnamed(name.to_owned(), secret) }
    }

    fn unnamed(name: String, secret: Secret) -> Self {
        let id = token_id(&secret);
        Self { name, secret, max_concurrent: None, sees_all: false, is_named: false, id }
    }

    pub(crate) fn is_named(&self) -> bool {
        self.is_named
    }

    /// The owner recorded with its images.
    pub(crate) fn owner(&self) -> &str {
        if self.is_named { &self.name } else { &self.id }
    }

    /// Whether it made an image with this owner, even before it had a name.
    pub(crate) fn is_owner(&self, owner: &str) -> bool {
        owner == self.owner() || owner == self.id
    }
}

/// The `#` distinguishes it from a name. Too short to reveal the token, long enough to distinguish a few.
fn token_id(secret: &Secret) -> String {
    let hash =
        Sha256::new().chain_update("gateway: owner of a picture\0").chain_update(secret.expose()).finalize();
    format!("#{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
}

pub(super) type ParsedTokens = Result<Vec<Token>, Cow<'static, str>>;

/// Parses `GATEWAY_BEARER_TOKEN`.
pub(super) fn single(text: &str) -> ParsedTokens {
    Ok(vec![Token::named("token", Secret::token(text)?)])
}

/// Merges the single token with the list. If the list names it, that name counts.
pub(super) fn merge(single: &[Token], several: Vec<Token>) -> Vec<Token> {
    let same = |one: &Token, other: &Token| one.secret.expose() == other.secret.expose();
    let is_unnamed = |one: &Token| !several.iter().any(|other| other.is_named && same(one, other));
    let mut tokens: Vec<_> = single.iter().filter(|one| is_unnamed(one)).cloned().collect();
    let is_additional = |other: &Token| other.is_named || !single.iter().any(|one| same(one, other));
    let additional: Vec<_> = several.into_iter().filter(is_additional).collect();
    tokens.extend(additional);
    tokens
}

/// Parses `GATEWAY_BEARER_TOKENS`, separated by commas or line ends. `name=token` needs a name of `[a-z0-9_-]{1,32}` and a token
/// of at least 16 characters; anything else is a bare token, because tokens in base64 end with `=`.
pub(super) fn parse_list(text: &str) -> ParsedTokens {
    let tokens: Vec<_> = text.split([',', '\n']).enumerate().map(read).collect::<Result<_, _>>()?;
    let limits: BTreeSet<_> = tokens
        .iter()
        .filter_map(|token| token.max_concurrent.map(|max| (token.name.as_str(), max)))
        .collect();
    let names: BTreeSet<_> = limits.iter().map(|(name, _)| *name).collect();
    if names.len() < limits.len() {
        return Err(CONFLICTING_MAX.into());
    }
    deduplicate(tokens)
}

/// Each secret once. With and without a name, the name counts; two names would be two holders.
fn deduplicate(tokens: Vec<Token>) -> ParsedTokens {
    let mut unique: Vec<Token> = Vec::new();
    let mut positions = BTreeMap::new();
    for token in tokens {
        let position = *positions.entry(token.secret.expose().to_owned()).or_insert(unique.len());
        let Some(before) = unique.get_mut(position) else {
            unique.push(token);
            continue;
        };
        match (before.is_named, token.is_named) {
            (true, true) if before.name != token.name => {
                return Err(format!(
                    "expected a different token for each name; {} and {} have the same one",
                    before.name, token.name
                )
                .into());
            }
            (true, true) => before.max_concurrent = before.max_concurrent.or(token.max_concurrent),
            (false, true) => *before = token,
            (_, false) => {}
        }
    }
    Ok(unique)
}

fn read((at, item): (usize, &str)) -> Result<Token, &'static str> {
    let item = item.trim();
    let bare = || {
        let secret = if has_max(item) { Err(UNNAMED_MAX) } else { Secret::token(item) };
        Ok(Token::unnamed(format!("token{}", at + 1), secret?))
    };
    let Some((name, rest)) = item.split_once('=').filter(|(name, _)| is_name(name)) else { return bare() };
    let (secret, max) = split_max(rest)?;
    match (secret.chars().count(), max) {
        (0, _) => Err(EMPTY),
        (16.., max) => Ok(Token { max_concurrent: max, ..Token::named(name, Secret::token(secret)?) }),
        (_, Some(_)) => Err(TOO_SHORT),
        (_, None) => bare(),
    }
}

/// Splits a token from its limit. A `;` without a key and `=` after it belongs to the token.
fn split_max(text: &str) -> Result<(&str, Option<usize>), &'static str> {
    let is_key = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase());
    let parameter = text.rsplit_once(';').map(|(secret, last)| (secret.trim_end(), last.trim()));
    let Some((secret, last)) = parameter else { return Ok((text, None)) };
    match last.split_once('=').map(|(key, value)| (key.trim_end(), value.trim_start())) {
        None if last.is_empty() || last.starts_with("max") => Err(INVALID_MAX),
        Some((key, value)) if is_key(key) => {
            let max = value.parse().ok().filter(|max| key == "max" && *max > 0).ok_or(INVALID_MAX)?;
            // A second limit.
            if split_max(secret)?.1.is_some() { Err(INVALID_MAX) } else { Ok((secret, Some(max))) }
        }
        None | Some(_) => Ok((text, None)),
    }
}

/// Whether it contains `;max=`.
fn has_max(item: &str) -> bool {
    let is_max = |part: &str| part.split_once('=').is_some_and(|(key, _)| key.trim() == "max");
    item.split(';').skip(1).any(is_max)
}

/// Whether a text can be the name of a token.
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// Applies `GATEWAY_OWNER_TOKENS`. Without it, a single holder sees everything.
pub(super) fn apply_owner_tokens(
    settings: &mut Settings,
    tokens: Vec<Token>,
    warnings: &mut Vec<String>,
) -> Vec<Arc<Token>> {
    let named = list(settings.raw(OWNER_TOKENS).unwrap_or_default(), |text| Some(text.to_owned()));
    let named = named.filter(|named| !named.is_empty());
    let known_names: BTreeSet<_> =
        tokens.iter().filter(|token| token.is_named).map(|token| token.name.as_str()).collect();
    if let Some(named) = &named {
        // The entry is not quoted: it may be the token itself.
        if let Some(at) = named.iter().position(|name| !known_names.contains(name.as_str())) {
            let known_names: Vec<_> = known_names.iter().copied().collect();
            let known_names = if known_names.is_empty() {
                "no token has a name".to_owned()
            } else {
                known_names.join(", ")
            };
            settings.add_problem(
                OWNER_TOKENS,
                format!(
                    "expected names of tokens (not the tokens themselves), from GATEWAY_BEARER_TOKENS as name=token, \
                     or `token` for GATEWAY_BEARER_TOKEN: {known_names}; entry {} is none of them",
                    at + 1
                ),
            );
        }
    }
    let owners: BTreeSet<_> = tokens.iter().map(Token::owner).collect();
    let secrets: BTreeSet<_> = tokens.iter().map(|token| token.secret.expose()).collect();
    let is_only_user = owners.len().min(secrets.len()) <= 1;
    if named.is_none() && !is_only_user {
        warnings.push(format!(
            "{OWNER_TOKENS} is not set and there are several tokens: each sees only its own images, and none sees older ones; \
             name the tokens that see all"
        ));
    }
    let sees_all = |token: &Token| match &named {
        Some(named) => token.is_named && named.contains(&token.name),
        None => is_only_user,
    };
    tokens.into_iter().map(|token| Arc::new(Token { sees_all: sees_all(&token), ..token })).collect()
}

#[cfg(test)]
mod tests {
    use service::secret::INVALID_TOKEN;

    use super::*;

    #[test]
    fn a_name_is_a_name_only_before_a_long_token() {
        for (text, expected) in [
            ("alice=0123456789abcdef", &[("alice", "0123456789abcdef")][..]),
            ("short=012345", &[("token1", "short=012345")]),
            ("Alice=0123456789abcdef", &[("token1", "Alice=0123456789abcdef")]),
            ("bare, bob=0123456789abcdefg", &[("token1", "bare"), ("bob", "0123456789abcdefg")]),
            ("a1\nbob=0123456789abcdefg", &[("token1", "a1"), ("bob", "0123456789abcdefg")]),
            ("c2VjcmV0LXRva2Vu==", &[("token1", "c2VjcmV0LXRva2Vu==")]),
        ] {
            let tokens = parse_list(text).unwrap();
            let read: Vec<_> =
                tokens.iter().map(|token| (token.name.as_str(), token.secret.expose())).collect();
            assert_eq!(read, expected, "{text}");
        }
        for bad in ["", "a,", ",a", "a, ,b", "alice="] {
            assert_eq!(parse_list(bad).err().as_deref(), Some(EMPTY), "{bad:?}");
        }
        for bad in ["a,schl\u{fc}ssel", "bob=0123456789abcde\u{7f}", "a\u{1}"] {
            assert_eq!(parse_list(bad).err().as_deref(), Some(INVALID_TOKEN), "{bad:?}");
        }
    }

    #[test]
    fn only_a_named_token_may_have_a_limit() {
        const SECRET: &str = "0123456789abcdef";
        for (suffix, secret, max) in [
            ("", SECRET, None),
            (";max=1", SECRET, Some(1)),
            (" ; max = 12 ", SECRET, Some(12)),
            (";x", "0123456789abcdef;x", None),
            (";X=1", "0123456789abcdef;X=1", None),
            (";=", "0123456789abcdef;=", None),
            ("=;max=2", "0123456789abcdef=", Some(2)),
            ("a;b;max=3", "0123456789abcdefa;b", Some(3)),
        ] {
            let token = &parse_list(&format!("alice={SECRET}{suffix}")).unwrap()[0];
            assert_eq!(
                (token.name.as_str(), token.secret.expose(), token.max_concurrent),
                ("alice", secret, max),
                "{suffix}"
            );
        }
        for suffix in [
            ";max=0",
            ";max=x",
            ";max=",
            ";max",
            ";max 1",
            ";",
            ";foo=1",
            ";max=-1",
            ";max=1;max=2",
            ";max=1;foo=2",
            ";foo=1;max=2",
            ";max=1.5",
            ";max=99999999999999999999999",
        ] {
            let read = parse_list(&format!("alice={SECRET}{suffix}"));
            assert_eq!(read.err().as_deref(), Some(INVALID_MAX), "{suffix}");
        }
        assert_eq!(parse_list("alice=short;max=1").err().as_deref(), Some(TOO_SHORT));
        assert_eq!(parse_list("alice=;max=1").err().as_deref(), Some(EMPTY));
        for bare in [
            "0123456789abcdef;max=1",
            "Alice=0123456789abcdef;max=0",
            "a b=0123456789abcdef; max = 1",
            "baretoken123456789;max=1;",
            "bare;max=",
        ] {
            assert_eq!(parse_list(bare).err().as_deref(), Some(UNNAMED_MAX), "{bare}");
        }
        for bare in ["0123456789abcdef;maximum=1", "0123456789abcdef;max", "max=1", "a;b", "a;b=c;"] {
            let token = &parse_list(bare).unwrap()[0];
            assert_eq!(
                (token.secret.expose(), token.max_concurrent),
                (bare, None),
                "a bare token is not split"
            );
        }
        let two = |one, other| parse_list(&format!("a={SECRET}1{one},a={SECRET}2{other}"));
        assert_eq!(two(";max=1", ";max=2").err().as_deref(), Some(CONFLICTING_MAX));
        assert!(two(";max=1", ";max=1").is_ok() && two("", ";max=1").is_ok());
    }

    #[test]
    fn two_names_for_one_secret_are_an_error_and_a_repetition_is_not() {
        const SECRET: &str = "0123456789abcdef";
        for text in [
            format!("alice={SECRET},bob={SECRET}"),
            format!("{SECRET},alice={SECRET};max=1,{SECRET},bob={SECRET}"),
        ] {
            let problem = parse_list(&text).unwrap_err();
            assert!(problem.contains("alice and bob have the same one"), "{problem}");
            assert!(!problem.contains(SECRET));
        }
        for text in [
            format!("alice={SECRET};max=2"),
            format!("alice={SECRET};max=2,alice={SECRET}"),
            format!("alice={SECRET},{SECRET},alice={SECRET};max=2"),
            format!("{SECRET},alice={SECRET};max=2"),
        ] {
            let tokens = parse_list(&text).unwrap();
            let read: Vec<_> =
                tokens.iter().map(|token| (token.name.as_str(), token.max_concurrent)).collect();
            assert_eq!(read, [("alice", Some(2))], "{text}");
        }
        for (several, names) in [
            (format!("alice={SECRET}"), &["alice"][..]),
            (SECRET.to_owned(), &["token"]),
            (format!("{SECRET},bob={SECRET}2"), &["token", "bob"]),
        ] {
            let tokens = merge(&single(SECRET).unwrap(), parse_list(&several).unwrap());
            let read: Vec<_> = tokens.iter().map(|token| token.name.as_str()).collect();
            assert_eq!(read, names, "{several}");
        }
        let one_person = parse_list(&format!("alice={SECRET}1;max=1,alice={SECRET}2")).unwrap();
        assert_eq!(one_person.len(), 2, "who gets another token has both for a while");
    }

    #[test]
    fn an_images_owner_is_a_name_or_the_hash_of_a_bare_token() {
        let tokens = parse_list("0123456789abcdef, bob=0123456789abcdefg").unwrap();
        let moved = parse_list("new, 0123456789abcdef").unwrap();
        let renamed = parse_list("alice=0123456789abcdef").unwrap();
        let (bare, bob, later, named) = (&tokens[0], &tokens[1], &moved[1], &renamed[0]);
        assert_eq!(bob.owner(), "bob");
        assert!(
            bare.owner().starts_with('#') && bare.owner().len() == 9 && !bare.owner().contains("0123456789")
        );
        assert!(later.is_owner(bare.owner()), "its place in the list does not matter");
        assert!(named.is_owner(bare.owner()) && named.owner() == "alice", "nor that it got a name");
        assert!(!bob.is_owner(bare.owner()) && !bare.is_owner("bob") && !moved[0].is_owner(bare.owner()));
        assert!(!bare.is_owner("token1"), "a number is no name");
    }
}

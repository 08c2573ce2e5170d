//! Splits names into tokens and searches them for phrases. Parts of a longer token do not count: `exxxl` is not `xl`.

/// The tokens of a name, in lower case: split at everything but letters and digits, between letters and digits, and where
/// `camelCase` begins a word. `sd_xl_base_1.0` is `sd xl base 1 0`, `ponyDiffusionV6XL` is `pony diffusion v 6 xl`.
pub(super) fn tokenize(name: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for run in name.split(|character: char| !character.is_alphanumeric()) {
        let chars: Vec<char> = run.chars().collect();
        let mut start = 0;
        while start < chars.len() {
            let end = end_of_word(&chars, start);
            split_xl(&chars[start..end], &mut tokens);
            start = end;
        }
    }
    tokens
}

/// The end of the word that begins at `start`.
fn end_of_word(chars: &[char], start: usize) -> usize {
    let until = |from: usize, kind: fn(&char) -> bool| {
        from + chars[from..].iter().take_while(|character| kind(character)).count()
    };
    let is_lowercase = |character: &char| !character.is_numeric() && !character.is_uppercase();
    if chars[start].is_numeric() {
        return until(start, |character| character.is_numeric());
    }
    let capitals = until(start, |character| character.is_uppercase());
    let end = until(capitals, is_lowercase);
    let is_only_capitals = end == capitals;
    // `SDXLBase` is `SDXL Base`; `SDXLbase` is `SDXL base`.
    match capitals - start {
        _ if is_only_capitals => capitals,
        0 | 1 => end,
        2.. if ends_with_xl(&chars[start..capitals]) => capitals,
        _ => capitals - 1,
    }
}

fn ends_with_xl(chars: &[char]) -> bool {
    chars.ends_with(&['X', 'L'])
}

/// `XL` before or after other capitals is a token: `XLV31`, `XLNAIXL`; but not in `XXL` and `PIXL`.
fn split_xl(token: &[char], tokens: &mut Vec<String>) {
    let mut push = |chars: &[char]| {
        if !chars.is_empty() {
            tokens.push(chars.iter().flat_map(|character| character.to_lowercase()).collect());
        }
    };
    let (mut first, mut rest): (&[char], &[char]) = (&[], token);
    if token.len() > 2
        && token.starts_with(&['X', 'L'])
        && token.iter().all(|character| character.is_uppercase())
    {
        (first, rest) = token.split_at(2);
    }
    push(first);
    let stem = rest.len().saturating_sub(2);
    if stem >= 3 && ends_with_xl(rest) && rest[stem - 1] != 'X' {
        let (stem, xl) = rest.split_at(stem);
        push(stem);
        push(xl);
    } else {
        push(rest);
    }
}

/// Whether these tokens contain the phrase: whole tokens in a row. `*` at either end of one matches anything, and a leading
/// `^` the beginning of the name.
pub(super) fn contains_phrase(tokens: &[String], phrase: &str) -> bool {
    let (phrase, at_start) = match phrase.strip_prefix('^') {
        Some(phrase) => (phrase, true),
        None => (phrase, false),
    };
    let parts: Vec<&str> = phrase.split(' ').collect();
    let mut windows = tokens.windows(parts.len()).take(if at_start { 1 } else { usize::MAX });
    windows.any(|window| window.iter().zip(&parts).all(|(word, part)| token_matches(word, part)))
}

fn token_matches(token: &str, part: &str) -> bool {
    match (part.strip_prefix('*'), part.strip_suffix('*')) {
        (Some(_), Some(_)) if part.len() > 1 => token.contains(part.trim_matches('*')),
        (Some(end), _) => token.ends_with(end),
        (None, Some(start)) => token.starts_with(start),
        (None, None) => token == part,
    }
}

/// Whether `xl` is a token, or ends one that is long enough to be a name (`realvisxl`).
pub(super) fn mentions_xl(tokens: &[String]) -> bool {
    let ends_with_xl =
        |word: &str| word.strip_suffix("xl").is_some_and(|stem| stem.len() >= 4 && !stem.ends_with('x'));
    tokens.iter().any(|word| word == "xl" || ends_with_xl(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_split_into_tokens() {
        for (name, expected) in [
            ("sd_xl_base_1.0", "sd xl base 1 0"),
            ("ponyDiffusionV6XL", "pony diffusion v 6 xl"),
            ("v1-5-pruned-emaonly", "v 1 5 pruned emaonly"),
            ("juggernautXL_ragnarokBy", "juggernaut xl ragnarok by"),
            ("animagineXLV31_v31", "animagine xl v 31 v 31"),
            ("noobaiXLNAIXL_vPred10Version", "noobai xl nai xl v pred 10 version"),
            ("hassakuXLIllustrious", "hassaku xl illustrious"),
            ("SDXLBase", "sdxl base"),
            ("dreamshaperXLbase", "dreamshaper xl base"),
            ("EXXXL", "exxxl"),
            ("PIXL", "pixl"),
            ("t5xxl_fp16", "t 5 xxl fp 16"),
            ("", ""),
            ("Größe", "größe"),
        ] {
            // `SDXL` is one token, and has its own phrase.
            assert_eq!(tokenize(name).join(" "), expected, "{name}");
        }
    }

    #[test]
    fn phrases_match_whole_tokens_in_a_row() {
        let has = |name: &str, phrase: &str| contains_phrase(&tokenize(name), phrase);
        assert!(has("sd3.5_large", "sd 3") && !has("mysd3", "sd 3") && !has("sd_x_3", "sd 3"));
        assert!(has("fluxedUp", "flux*") && !has("influx", "flux*"));
        assert!(has("waiillustrious", "*illustrious") && has("mysdxlmix", "*sdxl*"));
        assert!(has("v1-5-mine", "^v 1 5") && !has("mine-v1-5", "^v 1 5"));
        assert!(!has("sd", "sd 3") && !has("", "sd"));
    }

    #[test]
    fn xl_is_a_token_or_ends_a_name() {
        for (name, expected) in [
            ("newXL", true),
            ("realvisxlV50", true),
            ("a_xl", true),
            ("exxxl", false),
            ("t5xxl", false),
            ("pixl", false),
            ("axle", false),
            ("svd_xt", false),
        ] {
            assert_eq!(mentions_xl(&tokenize(name)), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_character_is_lost(name in "\\PC{0,40}") {
            let expected: String = name.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect();
            prop_assert_eq!(tokenize(&name).concat(), expected);
        }
    }
}

//! The response of the Images API. Requests are parsed with [`super::fields`] by each program.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `{"created":…,"data":[…]}`. Absent fields are omitted, never null.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImagesResponse {
    /// Unix seconds.
    pub created: u64,
    /// The images.
    pub data: Vec<ImageObject>,
    /// `opaque` or `transparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<String>,
    /// `png`, `jpeg` or `webp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_format: Option<String>,
    /// `low`, `medium` or `high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<String>,
    /// Request parameters that the model or graph does not support (an extension).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// `WxH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// That of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<String>,
    /// Token counts; zeros, because local engines have none and the SDKs' types require them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// One image: either in the response or at a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageObject {
    /// The file in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b64_json: Option<String>,
    /// Its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The prompt as the model saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revised_prompt: Option<String>,
    /// The seed (an extension): the same request with it gives the same image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How it was made (an extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Map<String, Value>>,
}

/// Token counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    pub input_tokens: u64,
    /// Of the response.
    pub output_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// Those of the prompt, by kind.
    #[serde(default)]
    pub input_tokens_details: InputTokens,
}

/// The prompt's tokens by kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InputTokens {
    /// Text.
    pub text_tokens: u64,
    /// Images.
    pub image_tokens: u64,
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSize {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

impl ImageSize {
    /// A size.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Width times height.
    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Parses `WIDTHxHEIGHT`, both positive integers.
    pub fn parse(text: &str) -> Option<Self> {
        let (width, height) = text.split_once(['x', 'X'])?;
        let side = |text: &str| {
            let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().filter(|side: &u32| *side > 0)
        };
        Some(Self::new(side(width)?, side(height)?))
    }
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_strictly() {
        assert_eq!(ImageSize::parse("512x768"), Some(ImageSize::new(512, 768)));
        assert_eq!(ImageSize::new(99_999, 99_999).pixels(), 9_999_800_001);
        for bad in
            ["", "512", "x", "512x", "x512", "0x8", "-8x8", "+8x8", "8 x8", "999999x8", "auto", "8x8x8"]
        {
            assert_eq!(ImageSize::parse(bad), None, "{bad}");
        }
    }
}

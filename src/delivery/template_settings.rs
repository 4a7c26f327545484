//! What a template says about the notifications that use it, beside their words.

use std::time::Duration;

use serde::Deserialize;

/// The content of `<template>/template.toml`. A template without that file has the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TemplateSettings {
    /// What recipients may refuse its notifications by, unless their request names another one.
    pub category: Option<String>,
    /// Its notifications wait neither for the end of quiet hours nor for the throttle.
    pub critical: bool,
    /// Templates whose waiting notifications about the same thing (order, product, user), to the same recipient, are
    /// replaced by one of this template.
    pub supersedes: Vec<String>,
    /// Notifications of one recipient are collected for so long and sent as one; the template's variables are then
    /// `items`, a list of each one's variables, and `count`.
    pub digest_window_ms: Option<u64>,
    /// Its notifications are worth nothing after this time, unless their request says otherwise.
    pub expires_after_ms: Option<u64>,
}

impl TemplateSettings {
    /// How long notifications are collected, when they are.
    pub fn digest_window(&self) -> Option<Duration> {
        self.digest_window_ms.map(Duration::from_millis)
    }

    /// How long a notification is worth something, when that ends.
    pub fn expires_after(&self) -> Option<Duration> {
        self.expires_after_ms.map(Duration::from_millis)
    }
}

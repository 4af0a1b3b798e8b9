//! The published Microsoft 365 endpoint data: which addresses Exchange Online sends from (endpoint id 10).

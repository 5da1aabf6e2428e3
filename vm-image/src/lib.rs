//! The guest image: recipe, builder, manifest and verification.

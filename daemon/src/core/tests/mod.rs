mod claims;
mod kernel;
mod model;
mod scripts;
mod storms;

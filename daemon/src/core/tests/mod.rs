mod kernel;
mod model;
mod scripts;

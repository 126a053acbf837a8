//! Rules of injection; files before and after are in the tests of the command.

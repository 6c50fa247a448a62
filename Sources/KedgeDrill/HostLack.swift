// What the server says when this host lacks something that the original has. That says nothing about the backup, so it
// is told as an error with what to install, and makes no proof. Pure.

import KedgeCore

/// Failures of the database that are this host's.
enum HostLack {
    /// The error to end the drill with; nil where `error` is about the data.
    ///
    /// The words are those of src/backend/utils/init/postinit.c (CheckMyDatabase),
    /// src/backend/utils/adt/pg_locale.c and src/backend/utils/fmgr/dfmgr.c under `lc_messages = C`.
    static func error(for error: KedgeError) -> KedgeError? {
        guard let detail = error.detail else { return nil }
        if detail.contains("is not recognized by setlocale")
            || detail.contains("database locale is incompatible with operating system")
            || detail.contains("could not create locale \"")
        {
            return KedgeError(
                .configuration, "cannot drill on this host: it lacks a locale of the restored cluster", detail: detail,
                hint: "Make the locale here as it is on the original (locale-gen or localedef), then drill again.")
        }
        // A library that a function, an index or a setting needs; a relation's file "could not be opened" instead.
        if detail.contains("could not access file \"") || detail.contains("could not load library \"") {
            return KedgeError(
                .configuration, "cannot drill on this host: it lacks a library of the restored cluster", detail: detail,
                hint: "Install the package that holds the library here, then drill again.")
        }
        return nil
    }

    /// Whether the server that runs will not let us in, however often we ask.
    static func isFinal(_ error: KedgeError) -> Bool {
        guard error.code == .databaseUnavailable, let detail = error.detail, detail.contains("FATAL:") else {
            return false
        }
        let passing = [
            "the database system is", "too many clients", "remaining connection slots", "terminating connection",
            "canceling statement",
        ]
        return !passing.contains { detail.contains($0) }
    }
}

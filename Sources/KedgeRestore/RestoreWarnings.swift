// What a restore has to say besides its plan: what it could not look at, and what may come of that.

extension Restore.Outcome {
    /// Sentences about what is not as it should be, or could not be known.
    package var warnings: [String] {
        guard let recoveryReads, !awayRepositories.isEmpty else { return plan.warnings }
        func list(_ names: [String]) -> String { names.map { "\"\($0)\"" }.joined(separator: ", ") }
        let away = list(awayRepositories)
        // A server takes the first number whose history nobody gives it (src/backend/access/transam/timeline.c,
        // findNewestTimeLine).
        return [
            "Recovery will ask repository \(list(recoveryReads)) alone, for at the first file that is missing there "
                + "those that cannot be read would end it: what only repository \(away) has is not recovered.",
            "A timeline that only repository \(away) knows is not known to recovery: the server may give its number to "
                + "its own new timeline when it is promoted, and two timelines of one number cannot be told apart.  "
                + "Bring that repository back and restore again before the server is promoted, or give "
                + "\"--target-action pause\" and look first which histories it has.",
        ] + plan.warnings
    }
}

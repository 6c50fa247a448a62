// `kedge backup`.
import KedgeCore

/// The command line of `backup`.
enum BackupCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "backup", summary: "take a base backup",
        description: [
            "Copies the data directory of the running server into the repository. It checks data page checksums on "
                + "the way; damaged pages are listed, and the exit status is then 3."
        ],
        options: [.choice("type", ["full"], "The type of backup; full is the default.")])
}

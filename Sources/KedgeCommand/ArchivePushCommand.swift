// `kedge archive-push`: PostgreSQL's archive_command.
import KedgeCore

/// The command line of `archive-push`.
enum ArchivePushCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "archive-push", summary: "store one WAL file (archive_command)",
        description: [
            "Stores a WAL file in every repository of the cluster and succeeds only once it is durable there. In "
                + "postgresql.conf: archive_command = 'kedge archive-push %p'. The exit status is never above 125."
        ],
        arguments: [ArgumentSpecification("PATH", "The WAL file, as PostgreSQL gives it with %p.")],
        logLevel: .warn)
}

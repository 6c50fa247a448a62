// `kedge archive-prefetch`: what `archive-get` leaves behind while the server replays. Nobody else needs to run it.
import KedgeArchive
import KedgeCore

/// The command line of `archive-prefetch`, and how `archive-get` starts it.
enum ArchivePrefetchCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "archive-prefetch", summary: "fetch WAL ahead of a recovery (archive-get runs it)",
        description: [
            "Fetches the segments that a recovering server will ask for next into the spool below work-directory. "
                + "archive-get starts it in the server's data directory; it ends with the server, or when the server "
                + "has got nothing for some seconds, and removes what it fetched. archive-get-prefetch = 0 "
                + "turns it off."
        ], logLevel: .warn, isInternal: true)

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        guard let copies = context.fetchedCopies(of: cluster, in: configuration) else {
            throw KedgeError(
                .notFound, "cannot fetch WAL ahead: no server that recovers runs in this directory",
                hint: "Leave it to archive-get, which starts it in the server's data directory.")
        }
        let ahead = try fetchAhead(into: copies, cluster, configuration, context)
        let count: Int
        do throws(KedgeError) {
            count = try ahead.run()
        } catch  where error.code == .locked {
            // Somebody else is at it.
            count = 0
        }
        context.log.info("fetched \(count) WAL file(s) ahead")
        return CommandResult(lines: [], json: ["fetched": .int(count)])
    }

    private static func fetchAhead(
        into copies: FetchedCopies, _ cluster: ClusterConfiguration, _ configuration: Configuration,
        _ context: CommandContext
    ) throws(KedgeError) -> FetchAhead {
        let surroundings = context.surroundings
        return FetchAhead(
            FetchAhead.Options(
                clusterName: cluster.name, repositories: context.sources(of: cluster, in: configuration),
                destination: context.destination(of: cluster, in: configuration).text,
                segments: max(1, cluster.archiveGetPrefetch),
                inFlight: context.segmentsInFlight(of: cluster, in: configuration)),
            into: copies, random: surroundings.random, time: surroundings.time,
            interruption: surroundings.interruption)
    }

    /// Sees to it that somebody fetches what the server asks for after `segment`, which it has got just now;
    /// `isNoted` says that the spool knows that. What goes wrong costs time alone, and is logged.
    static func follow(
        _ segment: String, isNoted: Bool, into copies: FetchedCopies, _ cluster: ClusterConfiguration,
        _ configuration: Configuration, _ context: CommandContext
    ) {
        do throws(KedgeError) {
            if copies.server.isFirstProcess {
                return try fetchAhead(into: copies, cluster, configuration, context).runOnce(behind: segment)
            }
            if !isNoted { try copies.noteAsked(segment) }
            guard !copies.isBeingFilled else { return }
            // The very options that we were called with (lesson 52).
            var words = [context.surroundings.host.executable, "--config=\(context.absolute(configuration.path))"]
            words.append("--cluster=\(cluster.name)")
            words += context.arguments.overrides.map { "--\($0.key)=\($0.value)" }
            var child = Subprocess(words + [specification.name])
            child.bond = .ownSession
            var process = try child.start(output: .discarded, errors: .discarded)
            process.release()
        } catch {
            context.log.info("could not fetch WAL ahead: \(error.message)")
        }
    }
}

// Where a cluster's spool is, and what its notes are about.
import KedgeArchive
import KedgeCodec
import KedgeCore
import KedgeRepository

extension CommandContext {
    /// The cluster's spool in its work-directory; nil for a cluster whose name can't be that of a directory.
    func spool(of cluster: ClusterConfiguration) -> Spool? {
        // The command fails for its own reasons then.
        guard RepositoryLayout.cluster(cluster.name) != nil else { return nil }
        let (path, user) = (cluster.workDirectory, surroundings.host.userID)
        return Spool(
            workDirectory: RawPath(path), clusterName: cluster.name, random: surroundings.random,
            isSafe: { () throws(KedgeError) in try WorkDirectory.exists(path, user: user) },
            prepare: { () throws(KedgeError) in try WorkDirectory.prepare(path, user: user) })
    }

    /// The repositories of a cluster as notes know them. Reads no secret.
    func destination(of cluster: ClusterConfiguration, in configuration: Configuration) -> PushDestination {
        let repositories = configuration.repositories(of: cluster)
        let random = surroundings.random
        let texts = repositories.map { repository in
            "\(repository.name) at \(repository.place.description), "
                + (repository.keySource == nil ? "not encrypted" : "encrypted")
        }
        let places = repositories.map { repository -> PushDestination.Place in
            guard let directory = repository.place.directory else {
                return PushDestination.Place(repository: repository.name, openStore: nil)
            }
            return PushDestination.Place(
                repository: repository.name,
                openStore: { () throws(KedgeError) in try LocalStore(at: directory, random: random) })
        }
        return PushDestination(
            text: "cluster \(cluster.name) registered as \(cluster.registeredName) in " + texts.joined(separator: "; "),
            places: places)
    }

    /// How much `archive-push` stores ahead.
    func pushAhead(of cluster: ClusterConfiguration, in configuration: Configuration) -> PushAheadLimits {
        PushAheadLimits(
            segments: cluster.archivePushAhead, inFlight: segmentsInFlight(of: cluster, in: configuration))
    }

    /// How many segments are on their way at once: an object store answers late and serves many, a disk does not.
    func segmentsInFlight(of cluster: ClusterConfiguration, in configuration: Configuration) -> Int {
        let isLocal = configuration.repositories(of: cluster).allSatisfy { $0.place.directory != nil }
        return isLocal ? cluster.processMax : max(8, cluster.processMax)
    }

    /// What is fetched ahead for the server in whose data directory we run; nil where none runs there (pg_rewind, or a
    /// person somewhere else), and where nothing is to be fetched ahead.
    func fetchedCopies(of cluster: ClusterConfiguration, in configuration: Configuration) -> FetchedCopies? {
        guard cluster.archiveGetPrefetch > 0, dataDirectory(of: cluster) == ".",
            surroundings.fileExists("postmaster.pid"), let spool = spool(of: cluster),
            let server = RecoveringServer(
                dataDirectory: ".", destination: destination(of: cluster, in: configuration).text,
                time: surroundings.time)
        else { return nil }
        return FetchedCopies(for: server, in: spool, time: surroundings.time)
    }
}

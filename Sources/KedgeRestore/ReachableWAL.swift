// The WAL that a restored server will get: its restore_command reads every repository of the cluster, whichever of them
// the backup comes from. So the plan looks at all of them, in the order in which `archive-get` does.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// The archived WAL of one database system in every repository that can be read.
struct ReachableWAL {
    /// In the order in which `archive-get` reads them.
    let archives: [WALArchive]
    let histories: [TimelineID: TimelineHistory]
    /// Which repositories a recovery can ask; nil: all that it is configured to ask. One that can't be read now would
    /// end the recovery at the first file that no other has, since absence takes all of them.
    let readable: [String]?
    /// Histories, and repositories besides the backup's own, that could not be read.
    let unreadable: [UnreadableRecord]
    /// The names of the repositories among them.
    let unreadableRepositories: [String]
    private let inventory: WALInventory

    /// `own` is that of the backup's repository, which must be readable; `sources` are all that the server will read,
    /// that one among them. Empty: it alone. One that the server could not recover with counts as one that can't be
    /// read.
    init(
        _ own: WALArchive, _ sources: [RepositorySource], for options: Restore.Options, random: any RandomSource,
        interruption: Interruption
    ) throws(KedgeError) {
        let ownName = own.cluster.repository.name
        var archives: [WALArchive] = []
        var inventory: WALInventory?
        var histories: [TimelineID: TimelineHistory] = [:]
        var unreadable: [UnreadableRecord] = []
        var away: [String] = []
        func add(_ archive: WALArchive) throws(KedgeError) {
            // All of one repository or nothing of it.
            let names = try archive.inventory()
            let found = try archive.histories()
            archives.append(archive)
            inventory = inventory?.union(names) ?? names
            histories.merge(found.read) { first, _ in first }
            unreadable += found.unreadable
        }
        let isNamed = sources.contains { $0.settings.name == ownName }
        if !isNamed { try add(own) }
        for source in sources {
            try interruption.checkpoint()
            guard source.settings.name != ownName else {
                try add(own)
                continue
            }
            do throws(KedgeError) {
                let archive = try ReachableWAL.archive(in: source.hasty, like: own, random: random)
                try options.requireAbsenceProven(by: archive.cluster.repository)
                try add(archive)
            } catch {
                guard error.code != .interrupted else { throw error }
                away.append(source.settings.name)
                unreadable.append(UnreadableRecord(name: "repository \(source.settings.name)", error: error))
            }
        }
        self.archives = archives
        unreadableRepositories = away
        readable = archives.count == max(1, sources.count) ? nil : archives.map(\.cluster.repository.name)
        self.inventory = inventory ?? WALInventory(segmentSize: own.registration.walSegmentSize)
        self.histories = histories
        self.unreadable = unreadable.filter { record in
            // A history that another repository has is not missed.
            guard let file = WALFileName(record.name), case .history(let timeline) = file else { return true }
            return histories[timeline] == nil
        }
    }

    /// What names alone say about it.
    var archived: ArchivedWAL { ArchivedWAL(inventory: inventory, histories: histories) }

    private static func archive(
        in source: RepositorySource, like own: WALArchive, random: any RandomSource
    ) throws(KedgeError) -> WALArchive {
        let cluster = try source.openCluster(own.cluster.clusterName, for: .read, random: random)
        let registration = try cluster.registration(of: own.registration.systemIdentifier)
        guard registration.walSegmentSize == own.registration.walSegmentSize else {
            throw KedgeError(
                .walForeign, "cannot use the WAL of repository \"\(source.settings.name)\"",
                detail: "Its segments have \(registration.walSegmentSize) bytes, those of repository "
                    + "\"\(own.cluster.repository.name)\" \(own.registration.walSegmentSize).",
                hint: "Remove the repository from the cluster's repositories, or register the cluster there anew.")
        }
        return WALArchive(cluster, registration)
    }
}

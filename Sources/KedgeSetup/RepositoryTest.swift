// One repository as `check` sees it: does it open, does its store keep its promises, is there room, is this the
// cluster.

import KedgeCore
import KedgePostgres
import KedgeRepository

/// Tests one repository.
struct RepositoryTest {
    let repository: Check.Options.RepositoryUnderTest
    let clusterName: String
    let dataDirectory: RawPath
    /// Nil where it could not be read, which is a finding already.
    let control: ControlFile?
    let random: any RandomSource
    let interruption: Interruption

    private var name: String { repository.name }

    /// Returns the cluster in it if segments can be looked for there. Throws `interrupted`.
    func run(_ report: inout CheckReport) throws(KedgeError) -> ClusterRepository? {
        let opened = try report.attempt(.repository, in: name) { () throws(KedgeError) in
            try repository.source.get().open(for: .write, random: random)
        }
        guard let opened else { return nil }
        report.ok(.repository, in: name, "opened \(opened.store.location), id \(opened.identity.id)")
        try checkPromises(opened, &report)
        try examine(&report)
        try checkSpace(&report)
        return try checkRegistration(opened, &report)
    }

    // MARK: - Promises

    /// Tries every promise of the store below a directory that nobody else uses.
    private func checkPromises(_ opened: Repository, _ report: inout CheckReport) throws(KedgeError) {
        let place = RepositoryLayout.cluster(clusterName)?
            .appending(ClusterLayout.probes.text)?.appending(RandomID(from: random).hex)
        guard let place else {
            return report.fail(
                .storage, in: name,
                KedgeError(
                    .configuration, "cannot use \"\(clusterName)\" as the name of a cluster",
                    hint: "Use letters, digits, dots, underscores and hyphens."))
        }
        var broken = 0
        for (number, promise) in ObjectStoreContract.promises.enumerated() {
            try interruption.checkpoint()
            // A place for each: what is an object to one may be a directory to another, which no layout of ours does.
            guard let ownPlace = place.appending(String(number)) else { continue }
            let kept: Void? = try report.attempt(.storage, in: name) { () throws(KedgeError) in
                try promise.verify(on: opened.store, below: ownPlace)
            }
            if kept == nil { broken += 1 }
        }
        if broken == 0 {
            report.ok(.storage, in: name, "the store keeps all \(ObjectStoreContract.promises.count) promises")
        }
    }

    // MARK: - Object stores

    /// What an object store can do, and what it means where it can't.
    private func examine(_ report: inout CheckReport) throws(KedgeError) {
        guard case .success(let source) = repository.source, let examine = source.examineStore else { return }
        let found = try report.attempt(.objectStore, in: name, examine) ?? []
        for finding in found {
            switch finding.verdict {
            case .good: report.ok(.objectStore, in: name, "\(finding.what): \(finding.seen)")
            case .lacking(let meaning):
                report.warn(
                    .objectStore, in: name,
                    KedgeError(.configuration, "\(finding.what): \(finding.seen)", hint: meaning))
            case .broken(let error): report.fail(.objectStore, in: name, error)
            }
        }
    }

    // MARK: - Space

    private func checkSpace(_ report: inout CheckReport) throws(KedgeError) {
        guard let directory = repository.directory else { return }
        let space = try report.attempt(.space, in: name) { () throws(KedgeError) in
            try FileSystemSpace(near: directory)
        }
        guard let space else { return }
        let room = "\(space.freeBytes >> 20) MB of \(space.totalBytes >> 20) MB free at \"\(space.mountPoint)\""
        if RepositoryTest.isScarce(free: space.freeBytes, of: space.totalBytes) {
            report.warn(
                .space, in: name,
                KedgeError(
                    .noSpace, "little space is left for repository \"\(name)\": \(room)",
                    detail: "When it is full, segments stay in pg_wal until that is full too and the server stops.",
                    hint: "Make the file system larger, or move the repository."))
        } else if sharesFileSystem(directory) {
            report.warn(
                .space, in: name,
                KedgeError(
                    .configuration, "repository \"\(name)\" shares a file system with the data directory: \(room)",
                    detail: "What destroys the one destroys the other, and a repository that grows can stop the "
                        + "server.",
                    hint: "Put it on another disk, or better on another host."))
        } else {
            report.ok(.space, in: name, room)
        }
    }

    /// Less than a twentieth, or less than 1 GiB.
    static func isScarce(free: UInt64, of total: UInt64) -> Bool { free < total / 20 || free < 1 << 30 }

    private func sharesFileSystem(_ directory: RawPath) -> Bool {
        func device(_ path: RawPath) -> UInt64? {
            do throws(KedgeError) {
                return try FileStatus(at: path, followLinks: true).device
            } catch {
                // Whoever needs the directory says what is wrong with it.
                return nil
            }
        }
        guard let own = device(directory), let servers = device(dataDirectory) else { return false }
        return own == servers
    }

    // MARK: - Registration

    private func checkRegistration(
        _ opened: Repository, _ report: inout CheckReport
    ) throws(KedgeError) -> ClusterRepository? {
        let found = try report.attempt(.registration, in: name) { () throws(KedgeError) in
            let cluster = try ClusterRepository.open(opened, clusterName: clusterName)
            guard let control else { return (cluster, cluster.newestRegistration) }
            return (cluster, try cluster.registration(of: control.systemIdentifier))
        }
        guard let (cluster, registration) = found else { return nil }
        if let control, let difference = RepositoryTest.difference(registration, control) {
            report.fail(
                .registration, in: name,
                KedgeError(
                    .walForeign, "cluster \"\(clusterName)\" is not what it was when it was registered",
                    detail: difference,
                    hint: "Check pgdata.  A cluster that was changed by pg_resetwal needs a new name in the "
                        + "configuration, and \"kedge init\"."))
            return nil
        }
        if let control, let warning = SystemSuccession.warning(cluster, present: control) {
            report.warn(.registration, in: name, warning)
        }
        report.ok(
            .registration, in: name,
            "cluster \"\(clusterName)\" is registered: PostgreSQL \(registration.postgresVersion), system identifier "
                + "\(registration.systemIdentifier)")
        return cluster
    }

    /// What differs between the registration and the data directory; nil if nothing does.
    static func difference(_ registration: Registration, _ control: ControlFile) -> String? {
        func differ(_ what: String, _ registered: some BinaryInteger, _ present: some BinaryInteger) -> String? {
            registered == present ? nil : "Registered was \(what) \(registered), now it is \(present)."
        }
        return differ("PostgreSQL", registration.postgresVersion, control.version.major)
            ?? differ("a WAL segment size of", registration.walSegmentSize, control.walSegmentSize)
            ?? differ("a block size of", registration.blockSize, control.blockSize)
    }
}

// The quick answer of `archive-push`: a file that a note says is durable is acknowledged without reading it, without a
// key and, for an object store, without a request.
//
// Whatever does not fit means that there is no quick answer, and never an error: the whole push decides then.

package import KedgeCore
import KedgePostgres
package import KedgeRepository

/// Answers a push from the spool.
package struct AcknowledgedPush: Sendable {
    private let path: RawPath
    private let dataDirectory: RawPath
    private let spool: Spool
    private let destination: PushDestination
    private let time: any TimeSource

    /// `path` and `dataDirectory` are those of `ArchivePush.Options`.
    package init(
        path: RawPath, dataDirectory: RawPath, spool: Spool, destination: PushDestination, time: any TimeSource
    ) {
        self.path = path
        self.dataDirectory = dataDirectory
        self.spool = spool
        self.destination = destination
        self.time = time
    }

    /// The outcome where the file is known to be durable in every repository, else nil.
    package func run() -> ArchivePush.Outcome? {
        guard let text = path.lastComponent.text, let file = WALFileName(text), case .segment = file,
            let record = spool.read(text, in: .durable)
        else { return nil }
        do throws(KedgeError) {
            let note = try PushNote(record)
            guard note.file == text, note.destination == destination.text, note.isValid(at: time.now()),
                note.copies.map(\.repository) == destination.places.map(\.repository),
                note.identity == FileIdentity(try FileStatus(at: path, followLinks: true)),
                note.system == (try ControlFile.read(dataDirectory: dataDirectory, time: time)).systemIdentifier
            else { return nil }
            for (copy, place) in zip(note.copies, destination.places) where try !isThere(copy, place) { return nil }
            return ArchivePush.Outcome(
                file: file, stored: note.copies.map { ($0.repository, .alreadyExists) }, suspect: nil, isFromNote: true)
        } catch {
            return nil
        }
    }

    /// Whether a copy is still where it was stored, and has the size that it had; believed where looking would cost a
    /// request.
    private func isThere(_ copy: PushNote.Copy, _ place: PushDestination.Place) throws(KedgeError) -> Bool {
        guard let store = try place.openStore?() else { return true }
        guard let identity = try Repository.findIdentity(store, name: copy.repository),
            identity.id == copy.repositoryID, let name = ObjectName(copy.object), let size = copy.sizeBytes
        else { return false }
        return try store.status(of: name)?.sizeBytes == size
    }
}

/// The repositories of a cluster as a note knows them.
package struct PushDestination: Sendable {
    package struct Place: Sendable {
        /// The name of the configuration section.
        package let repository: String
        /// Opens the store where looking costs next to nothing; nil where it costs a request over a network, and the
        /// note is believed without one.
        package let openStore: (@Sendable () throws(KedgeError) -> any ObjectStore)?

        package init(repository: String, openStore: (@Sendable () throws(KedgeError) -> any ObjectStore)?) {
            self.repository = repository
            self.openStore = openStore
        }
    }

    /// All that the configuration says of where WAL goes: with another text, no note counts.
    package let text: String
    package let places: [Place]

    package init(text: String, places: [Place]) {
        self.text = text
        self.places = places
    }

    /// The same where no repository is asked, and each note is believed: one that hangs must not keep a push from what
    /// needs none.
    package var unasked: PushDestination {
        PushDestination(
            text: text, places: places.map { Place(repository: $0.repository, openStore: nil) })
    }
}

// What this host remembers of the places of repositories: a small file in the work-directory for each place.
//
// As with KeyNotes, a work-directory that can't be used is reported and is no reason not to archive; one that was
// deleted is made again.
import KedgeCodec
import KedgeCore
import KedgeRepository

/// Notes of the repository in one place, in every work-directory of the clusters that use it.
struct PlaceNotes: PlaceMemory {
    let place: String
    private let directories: [String]
    private let user: UInt32
    private let random: any RandomSource
    private let warn: @Sendable (String) -> Void

    /// `user` is our effective user id: what belongs to anybody else is not believed, but by root.
    init(
        of place: String, in directories: [String], user: UInt32, random: any RandomSource,
        warn: @escaping @Sendable (String) -> Void
    ) {
        self.place = place
        self.directories = directories
        self.user = user
        self.random = random
        self.warn = warn
    }

    var locations: [String] { directories.map(path) }

    func known() -> [RandomID?] { directories.map { noted(in: $0, warns: true) } }

    func remember(_ repository: RandomID) {
        let note: JSONValue = [
            "kedge": "repository-place", "place": .string(place), "repository": .string(repository.hex),
        ]
        // Those of another user's cluster can't be written: that must not cost our own a write each time.
        for directory in directories where noted(in: directory, warns: false) != repository {
            do throws(KedgeError) {
                try WorkDirectory.prepare(directory, user: user)
                _ = try DurableFile.write(
                    Array((note.compactText + "\n").utf8), to: RawPath(path(in: directory)), mode: 0o600,
                    replacing: true, random: random)
            } catch {
                warn(
                    "could not remember which repository lies in \(place): \(error.message)"
                        + "\(error.detail.map { ": " + $0 } ?? "")")
            }
        }
    }

    private func path(in directory: String) -> String {
        "\(directory)/repository-at-\(ContentHash(of: Array(place.utf8)).hex)"
    }

    private func noted(in directory: String, warns: Bool) -> RandomID? {
        let path = path(in: directory)
        do throws(KedgeError) {
            guard try WorkDirectory.exists(directory, user: user) else { return nil }
        } catch {
            // It is reported by whoever writes there next. But it is often root who runs init, beside a server whose
            // user has the notes: and all that they do is to have it confirmed.
            guard user == 0 else { return nil }
        }
        do throws(KedgeError) {
            let bytes = try FileDescriptor.open(RawPath(path), [.read, .noFollow, .nonBlocking])
                .readAll(limit: 16 << 10)
            let record = try JSONRecord(parsing: bytes, what: "note \"\(path)\"")
            try record.expectType("repository-place")
            guard try record.string("place") == place else { throw record.invalid("place", "is another one") }
            return try record.parsed("repository") { RandomID(hex: $0) }
        } catch {
            if warns, error.code != .notFound {
                warn(
                    "could not read which repository lies in \(place): \(error.message)"
                        + "\(error.detail.map { ": " + $0 } ?? "")")
            }
            return nil
        }
    }
}

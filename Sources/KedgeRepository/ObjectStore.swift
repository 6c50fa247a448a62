// The byte-level protocol of a store, and every promise that a store makes. `ObjectStoreContract` tests them on each.
//
// What the rest of Kedge may rely on:
//  1. Whole or not at all. An object appears under its name complete, or it does not appear: no reader ever sees part
//     of one, whatever the writer died of.
//  2. Durable when acknowledged. When `put`, `finish`, `makeDurable` or `remove` returns, a power failure does not
//     undo it. This includes every directory on the way.
//  3. Written once. Of any number of `createOnly` puts of one name exactly one is `.created`; the others are
//     `.alreadyExists` and change nothing. An object found to exist may not be durable yet (its writer may have
//     crashed, or be at it): `makeDurable` before it is relied on.
//  4. Absent means absent. `not-found`, nil and an empty listing are given only when the store itself answered that
//     the object is not there. Not mounted, not reachable, not permitted are errors of their own.
//  5. Exact reads. A range read returns exactly the bytes asked for, or throws.
//  6. Read your writes. What was acknowledged is seen by every later read and listing, of any process.
//  7. After an error of a writing call its effect is unknown: done wholly or not at all (promise 1), maybe not durably.
//
// A name is either an object or a directory of objects, never both; the layout sees to that. What a store answers of a
// directory that is asked for as an object is its own affair.
// All calls block, may be made from any number of threads at once, and throw only `KedgeError`. An error whose code is
// retryable invites the very same call again. Nothing here retries: `RetryingStore` does.

package import KedgeCore

/// A place that holds objects: named, immutable sequences of bytes.
package protocol ObjectStore: Sendable {
    /// What this store can do beyond the promises.
    var capabilities: StoreCapabilities { get }

    /// Where it is, for messages: a directory or a URL, without secrets.
    var location: String { get }

    /// How much room is left for objects; nil where there is no limit, or none that is known.
    func space() throws(KedgeError) -> FileSystemSpace?

    /// Size and time of an object, nil if it is absent.
    func status(of name: ObjectName) throws(KedgeError) -> ObjectStatus?

    /// Fills `buffer` with the object's bytes from `offset` on.
    ///
    /// Throws `not-found` if the object is absent and `damaged` if it ends before the buffer is full.
    func read(
        _ name: ObjectName, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(KedgeError)

    /// The object's first bytes, at most `limit`; all of them, and so fewer, when it is shorter. One request.
    ///
    /// Throws `not-found` if the object is absent.
    func readPrefix(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8]

    /// Stores a whole object.
    ///
    /// With `createOnly`, an existing object is left alone. With `replace` it is replaced in one step: readers see the
    /// old bytes or the new ones. Only objects that the layout calls mutable may be replaced.
    func put(_ name: ObjectName, _ body: ObjectBody, _ condition: PutCondition) throws(KedgeError) -> PutOutcome

    /// Begins an object whose length is not known yet. It is `createOnly`, and invisible until `finish`.
    ///
    /// `expectedBytes` helps to choose the size of parts; it is no limit.
    func beginUpload(_ name: ObjectName, expectedBytes: UInt64) throws(KedgeError) -> any ObjectUpload

    /// Makes an object that is there, and the way to it, durable. Throws `not-found` if it is absent.
    func makeDurable(_ name: ObjectName) throws(KedgeError)

    /// Objects below `directory` (nil: all) at any depth, after the name `after`, at most `limit` (> 0).
    ///
    /// The objects that lie directly in one directory come in byte order. Where the others come between them is the
    /// store's own affair, but always the same: some compare whole names, some component by component.
    /// An object that is there all the time between the first and the last page is listed exactly once; one that comes
    /// or goes meanwhile may be listed or not. A directory without objects is the same as none: an empty page.
    func list(below directory: ObjectName?, after: ObjectName?, limit: Int) throws(KedgeError) -> ListPage

    /// Names of the directories directly below `directory` that hold an object at any depth, paged as in `list`.
    ///
    /// They come in the order of the objects in them: byte order with "/" added, so "a-b" is before "a".
    func listDirectories(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> DirectoryPage

    /// Removes objects, in any order. An absent object counts as removed.
    ///
    /// Returns those that could not be removed, each with its error; throws where nothing could be tried.
    func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure]

    /// Removes what writers that died left behind unseen, if it was last touched before `moment` by the store's clock.
    ///
    /// Returns how many pieces it removed. A writer that is still at it loses its work and gets an error.
    func removeAbandonedWrites(before moment: Timestamp) throws(KedgeError) -> Int
}

/// An object being written in pieces. Used by one thread at a time.
///
/// States: open → finished (`finish` returned) or aborted (`abort`, or freed without either). What an upload that was
/// neither finished nor aborted leaves behind is invisible, and `removeAbandonedWrites` takes it away.
package protocol ObjectUpload: AnyObject {
    /// Adds bytes at the end. When it throws, none of them was taken, and the same call may be made again.
    func append(_ bytes: UnsafeRawBufferPointer) throws(KedgeError)

    /// Makes the object durable and visible; `.alreadyExists` where the name is taken. May be called again after a
    /// retryable error, and then says what became of the first attempt.
    func finish() throws(KedgeError) -> PutOutcome

    /// Gives it up and removes what was written, as far as that is possible.
    func abort()
}

/// What a store can do beyond the promises.
package struct StoreCapabilities: Hashable, Sendable {
    /// Whether `createOnly` is decided by the store itself. Without it promise 3 holds only among writers that do not
    /// overlap, so names of WAL files carry their content tag there.
    package let hasConditionalPut: Bool

    package init(hasConditionalPut: Bool) { self.hasConditionalPut = hasConditionalPut }
}

/// What to do when the name is taken.
package enum PutCondition: Hashable, Sendable {
    case createOnly
    case replace
}

/// What a put found.
package enum PutOutcome: Hashable, Sendable {
    case created
    case alreadyExists
}

/// The bytes of an object to be put, in pieces, so that frames need not be copied together.
package struct ObjectBody: Sendable {
    package let parts: [[UInt8]]
    package let sizeBytes: Int

    package init(_ parts: [[UInt8]]) {
        self.parts = parts
        sizeBytes = parts.reduce(0) { $0 + $1.count }
    }

    package init(_ bytes: [UInt8]) { self.init([bytes]) }
}

/// What a store says about an object without reading it.
package struct ObjectStatus: Hashable, Sendable {
    package let sizeBytes: UInt64
    /// When it was stored, by the store's own clock. S3 gives whole seconds.
    package let modified: Timestamp

    package init(sizeBytes: UInt64, modified: Timestamp) {
        self.sizeBytes = sizeBytes
        self.modified = modified
    }
}

/// One object in a listing.
package struct ListEntry: Hashable, Sendable {
    package let name: ObjectName
    package let status: ObjectStatus

    package init(name: ObjectName, status: ObjectStatus) {
        self.name = name
        self.status = status
    }
}

/// A part of a listing, in the store's order.
package struct ListPage: Hashable, Sendable {
    package let entries: [ListEntry]
    /// What to give as `after` for the next page. Nil: this is the last one.
    package let next: ObjectName?

    package init(entries: [ListEntry], next: ObjectName?) {
        self.entries = entries
        self.next = next
    }
}

/// A part of a listing of directories.
package struct DirectoryPage: Hashable, Sendable {
    package let directories: [ObjectName]
    /// What to give as `after` for the next page. Nil: this is the last one.
    package let next: ObjectName?

    package init(directories: [ObjectName], next: ObjectName?) {
        self.directories = directories
        self.next = next
    }
}

/// An object that could not be removed.
package struct RemoveFailure: Sendable {
    package let name: ObjectName
    package let error: KedgeError

    package init(name: ObjectName, error: KedgeError) {
        self.name = name
        self.error = error
    }
}

// One repository, opened: its store, its keys, and how new objects are written.
//
// Order of opening: kedge.json → features → key slots (Repository+Keys.swift). What the local configuration says
// decides what is accepted: under `encryption = aes-256-gcm` a repository without a slot that the configured secret
// opens can't be used at all.

package import KedgeCodec
package import KedgeCore

/// How the configuration describes a repository, apart from where it is.
package struct RepositorySettings: Sendable {
    /// The name of the configuration section.
    package let name: String
    package let cipher: Cipher
    package let compression: CompressionChoice
    /// Opens the key slots; nil exactly if nothing is encrypted.
    package let secret: KeyEncryptionSecret?
    /// What messages call the secret, such as `key file "/etc/kedge/main.key"`.
    package var secretName = "configured secret"
    /// How much scrypt is spent on slots that do not open before opening fails: the sum of their n. As much as 256
    /// slots of kedge's own cost, half a minute; or 8 of the largest that are accepted.
    package var slotWork = UInt64(256) * KeySlot.standardScryptCost
    /// What this host remembers of the repository's keys; nil: nothing is remembered.
    package var keyMemory: (any KeyMemory)?
    /// What this host remembers of the repository's place; nil: nothing is remembered.
    package var placeMemory: (any PlaceMemory)?
    /// One that may be remembered there and is no more: another one takes its place.
    package var replacedRepository: RandomID?
    /// Takes what somebody should look at although the repository can be used.
    package var warn: (@Sendable (String) -> Void)?
    /// For clusters whose directories were renamed: the names that they were registered with, by their present ones.
    package let registeredNames: [String: String]

    package init(
        name: String, cipher: Cipher, compression: CompressionChoice, secret: KeyEncryptionSecret?,
        registeredNames: [String: String] = [:]
    ) {
        self.registeredNames = registeredNames
        self.name = name
        self.cipher = cipher
        self.compression = compression
        self.secret = secret
    }
}

/// An opened repository.
package final class Repository: Sendable {
    package let settings: RepositorySettings
    package let identity: RepositoryIdentity
    package let store: any ObjectStore
    package let keyRing: KeyRing
    /// Every slot of this repository, whether or not the secret opens it.
    package let slots: [KeySlot]
    /// What lies below `key/` and can't be used as a slot.
    package let unusableSlots: [UnusableSlot]
    package let random: any RandomSource
    /// Why what is not there proves nothing: this host has seen a newer state, or another repository in this place.
    /// What is there may still be read. Nil for a repository that is opened for anything but reading.
    package let outdated: KedgeError?

    /// The name of the configuration section.
    package var name: String { settings.name }

    private init(
        settings: RepositorySettings, identity: RepositoryIdentity, store: any ObjectStore, keyRing: KeyRing,
        found: FoundSlots = FoundSlots(), outdated: KedgeError? = nil, random: any RandomSource
    ) {
        self.outdated = outdated
        self.settings = settings
        self.identity = identity
        self.store = store
        self.keyRing = keyRing
        slots = found.slots
        unusableSlots = found.unusable
        self.random = random
    }

    /// Opens the repository in `store` for `use`.
    ///
    /// Throws `not-found` if there is none yet, `format-unknown`, `feature-unknown`, `key-missing`, `key-wrong`,
    /// `configuration` where it is encrypted and the configuration says that it is not, or the reverse, `key-outdated`
    /// for writing where this host has seen a newer data key than there is, `repository-unavailable` for writing where
    /// it has seen another repository in this place, `damaged`, or what the store throws.
    package static func open(
        _ store: any ObjectStore, _ settings: RepositorySettings, for use: RepositoryUse,
        random: any RandomSource = SystemRandomSource()
    ) throws(KedgeError) -> Repository {
        let identity = try readIdentity(store, settings)
        let place = try settings.checkPlace(of: identity, for: use)
        try store.forEachObject(below: RepositoryLayout.features) { (feature) throws(KedgeError) in
            let what = "feature \"\(feature.name.lastComponent)\" of repository \"\(settings.name)\""
            let bytes = try store.readAll(feature.name, limit: plainLimit)
            try FeatureGate.check(JSONRecord(parsing: bytes, what: what), for: use)
        }
        guard let secret = settings.secret else {
            try refuseKeys(store, settings, identity)
            if place.isNews { settings.placeMemory?.remember(identity.id) }
            return Repository(
                settings: settings, identity: identity, store: store, keyRing: .plain, outdated: place.stranger,
                random: random)
        }
        // Asked before the slots are listed: a key that is made and remembered in between is no sign of an older state.
        let known = settings.keyMemory?.newestKey(of: identity.id)
        let (found, opened) = try unlock(store, settings, secret, identity)
        let outdated = try checkNewest(opened, found, known: known, store, settings, identity, for: use)
        if place.isNews { settings.placeMemory?.remember(identity.id) }
        return Repository(
            settings: settings, identity: identity, store: store, keyRing: opened.ring, found: found,
            outdated: place.stranger ?? outdated, random: random)
    }

    /// Stores a key slot; slots are never replaced.
    package static func putKeySlot(_ slot: KeySlot, in store: any ObjectStore) throws(KedgeError) {
        guard let name = RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID),
            try store.put(name, ObjectBody(Array(slot.json.prettyText.utf8)), .createOnly) == .created
        else {
            throw KedgeError(
                .alreadyExists, "could not store key slot \"\(slot.slotID)\"",
                detail: "The repository has a slot of that name.", hint: "Try again: the names are random.")
        }
    }

    /// What `kedge.json` says, or nil where the store holds no repository yet.
    package static func findIdentity(
        _ store: any ObjectStore, name: String
    ) throws(KedgeError) -> RepositoryIdentity? {
        let bytes: [UInt8]
        do throws(KedgeError) {
            bytes = try store.readAll(RepositoryLayout.marker, limit: plainLimit)
        } catch {
            guard error.code == .notFound else { throw error }
            return nil
        }
        do throws(KedgeError) {
            return try RepositoryIdentity(JSONRecord(parsing: bytes, what: "repository \"\(name)\""))
        } catch {
            guard error.code == .damaged, error.hint == nil else { throw error }
            var error = error
            error.hint =
                "Its kedge.json is damaged, which holds nothing but the repository's id and format.  Put it back "
                + "from a mirror or an older version in its store; all else may be whole, which \"kedge verify "
                + "--full\" tells then.  A second repository can serve meanwhile."
            throw error
        }
    }

    /// Plain objects are small: anything longer than this many bytes is not one of ours.
    static let plainLimit = 64 << 10

    private static func readIdentity(
        _ store: any ObjectStore, _ settings: RepositorySettings
    ) throws(KedgeError) -> RepositoryIdentity {
        if let identity = try findIdentity(store, name: settings.name) { return identity }
        throw KedgeError(
            .notFound, "could not open repository \"\(settings.name)\": there is no kedge.json",
            detail: "\(store.location) is reachable, but it is not a Kedge repository.",
            hint:
                "Check that its file system is mounted, and the repository's location in the configuration.  If it is "
                + "new, run \"kedge init\".")
    }
}

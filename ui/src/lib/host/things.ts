/** What a host offers of images, volumes, networks and registries. */
import type { Job, Stop } from "./host";
import type {
  ImageDetails,
  ImageRow,
  Label,
  LayerRows,
  LayerView,
  NetworkDetails,
  NetworkRow,
  NewNetwork,
  Pruned,
  RegistriesView,
  ThingKind,
  VolumeRow,
} from "./types.gen";

export interface ThingsHost {
  /** Which lists have changed, whenever some have. What changed before is not told. */
  watchChanges(seen: (kinds: ThingKind[]) => void): Stop;

  images(): Promise<ImageRow[]>;
  imageDetails(id: string): Promise<ImageDetails>;
  /** Which files the layers hold, the lowest first. The machine sends the whole image for it, unless it was read before. */
  readLayers(id: string, job: Job): Promise<LayerView[]>;
  /** Of a layer that was read, counted from the lowest: what is in a folder, or the largest files of all. */
  layerFiles(id: string, layer: number, folder: string | null, search: string): Promise<LayerRows>;
  pullImage(reference: string, job: Job): Promise<void>;
  pushImage(reference: string, job: Job): Promise<void>;
  tagImage(id: string, reference: string): Promise<void>;
  /** Removes a name, or by its digest an image; forced also while containers made from it are there. */
  removeImage(reference: string, force: boolean): Promise<void>;
  /** Removes images without a name, or all that no container was made from. */
  pruneImages(unused: boolean): Promise<Pruned>;
  /** Asks where to, and writes a tar file there; null where the person chose nothing. */
  saveImages(references: string[], job: Job): Promise<string | null>;
  /** Loads a tar file that was dropped, or asks for one; false where the person chose nothing. */
  loadImages(dropped: string | null, job: Job): Promise<boolean>;
  /** Asks for a tar file of a root file system; false where the person chose nothing. */
  importImage(reference: string, job: Job): Promise<boolean>;

  volumes(): Promise<VolumeRow[]>;
  /** Bytes of each volume, which the engine counts when it is asked. */
  volumeSizes(): Promise<ReadonlyMap<string, number>>;
  createVolume(name: string, labels: Label[]): Promise<void>;
  removeVolume(name: string): Promise<void>;
  emptyVolume(name: string, job: Job): Promise<void>;
  cloneVolume(name: string, to: string, job: Job): Promise<void>;
  /** Asks where to, and writes a tar file there; null where the person chose nothing. */
  backUpVolume(name: string, job: Job): Promise<string | null>;
  /** Asks for a tar file and makes a new volume of it; false where the person chose nothing. */
  restoreVolume(name: string, job: Job): Promise<boolean>;

  networks(): Promise<NetworkRow[]>;
  networkDetails(id: string): Promise<NetworkDetails>;
  /** Its id. */
  createNetwork(network: NewNetwork): Promise<string>;
  connectNetwork(id: string, container: string): Promise<void>;
  disconnectNetwork(id: string, container: string): Promise<void>;
  removeNetwork(id: string): Promise<void>;
  pruneNetworks(): Promise<Pruned>;

  /** The registries that this person's Docker client is signed in to. */
  registries(): Promise<RegistriesView>;
  /** Has the engine check the password, and a credential helper keep it. An empty address is Docker Hub's. */
  signIn(address: string, user: string, password: string): Promise<void>;
  /** By the address that the list has. */
  signOut(address: string): Promise<void>;
}

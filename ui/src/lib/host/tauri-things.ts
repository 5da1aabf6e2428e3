/** Images, volumes, networks and registries of the desktop application. */
import type { Job, Stop } from "./host";
import { call, longCall, watch } from "./tauri-call";
import { TauriProjects } from "./tauri-projects";
import type { ThingsHost } from "./things";
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

export class TauriThings extends TauriProjects implements ThingsHost {
  watchChanges(seen: (kinds: ThingKind[]) => void): Stop {
    return watch<ThingKind[]>("watch_changes", {}, (kinds) => seen(kinds));
  }

  images(): Promise<ImageRow[]> {
    return call("images");
  }

  imageDetails(id: string): Promise<ImageDetails> {
    return call("image_details", { id });
  }

  readLayers(id: string, job: Job): Promise<LayerView[]> {
    return longCall("read_layers", { id }, job);
  }

  layerFiles(id: string, layer: number, folder: string | null, search: string): Promise<LayerRows> {
    return call("layer_files", { id, layer, folder, search });
  }

  pullImage(reference: string, job: Job): Promise<void> {
    return longCall("pull_image", { reference }, job);
  }

  pushImage(reference: string, job: Job): Promise<void> {
    return longCall("push_image", { reference }, job);
  }

  tagImage(id: string, reference: string): Promise<void> {
    return call("tag_image", { id, reference });
  }

  removeImage(reference: string, force: boolean): Promise<void> {
    return call("remove_image", { reference, force });
  }

  pruneImages(unused: boolean): Promise<Pruned> {
    return call("prune_images", { unused });
  }

  saveImages(references: string[], job: Job): Promise<string | null> {
    return longCall("save_images", { references }, job);
  }

  loadImages(dropped: string | null, job: Job): Promise<boolean> {
    return longCall("load_images", { dropped }, job);
  }

  importImage(reference: string, job: Job): Promise<boolean> {
    return longCall("import_image", { reference }, job);
  }

  volumes(): Promise<VolumeRow[]> {
    return call("volumes");
  }

  async volumeSizes(): Promise<ReadonlyMap<string, number>> {
    return new Map(Object.entries(await call<Record<string, number>>("volume_sizes")));
  }

  createVolume(name: string, labels: Label[]): Promise<void> {
    return call("create_volume", { name, labels });
  }

  removeVolume(name: string): Promise<void> {
    return call("remove_volume", { name });
  }

  emptyVolume(name: string, job: Job): Promise<void> {
    return longCall("empty_volume", { name }, job);
  }

  cloneVolume(name: string, to: string, job: Job): Promise<void> {
    return longCall("clone_volume", { name, to }, job);
  }

  backUpVolume(name: string, job: Job): Promise<string | null> {
    return longCall("back_up_volume", { name }, job);
  }

  restoreVolume(name: string, job: Job): Promise<boolean> {
    return longCall("restore_volume", { name }, job);
  }

  networks(): Promise<NetworkRow[]> {
    return call("networks");
  }

  networkDetails(id: string): Promise<NetworkDetails> {
    return call("network_details", { id });
  }

  createNetwork(network: NewNetwork): Promise<string> {
    return call("create_network", { network });
  }

  connectNetwork(id: string, container: string): Promise<void> {
    return call("connect_network", { id, container });
  }

  disconnectNetwork(id: string, container: string): Promise<void> {
    return call("disconnect_network", { id, container });
  }

  removeNetwork(id: string): Promise<void> {
    return call("remove_network", { id });
  }

  pruneNetworks(): Promise<Pruned> {
    return call("prune_networks");
  }

  registries(): Promise<RegistriesView> {
    return call("registries");
  }

  signIn(address: string, user: string, password: string): Promise<void> {
    return call("sign_in", { address, user, password });
  }

  signOut(address: string): Promise<void> {
    return call("sign_out", { address });
  }
}
